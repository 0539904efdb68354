//! VRRP as keepalived plays it (RFC 9568 §6.4, with its FAULT state): who has the virtual
//! addresses. Preemption is on, after `preempt_delay`.

use crate::clock::{Micros, millis};

/// Time between two adverts of a MASTER.
pub const ADVERT_INTERVAL: Micros = millis(100);

/// How long a router watches a MASTER of lower priority before it takes over, as generated
/// configurations have it: longer than nodes of the usual `hello-interval` need to hear each other.
pub const PREEMPT_DELAY: Micros = millis(2000);

/// What a router is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Something that it needs is missing: it takes no part.
    Fault,
    /// It waits for the MASTER to fall silent.
    Backup,
    /// It has the virtual addresses.
    Master,
}

/// What a router says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// To the other routers: an advert of this priority; 0 resigns.
    Advert(u8),
    /// To the hosts: gratuitous ARP and neighbour advertisements. The virtual addresses are here.
    Here,
}

/// A router.
#[derive(Clone, Debug)]
pub struct Router {
    id: u16,
    priority: u8,
    role: Role,
    preempt_delay: Micros,
    timer: Option<Micros>,
    /// When the MASTER of lower priority, which it hears, has had its time.
    preempt_at: Option<Micros>,
}

impl Router {
    /// A router that takes no part yet. Of two with equal priority the one with the higher `id`
    /// wins, as the higher address does.
    pub fn new(id: u16, priority: u8, preempt_delay: Micros) -> Self {
        Self { id, priority, role: Role::Fault, preempt_delay, timer: None, preempt_at: None }
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.timer
    }

    /// Tells it whether everything that it needs is there.
    pub fn set_able(&mut self, now: Micros, able: bool, say: &mut Vec<Say>) {
        match (able, self.role) {
            (true, Role::Fault) => self.wait(now),
            (false, Role::Master) => {
                say.push(Say::Advert(0));
                self.fail();
            }
            (false, _) => self.fail(),
            (true, _) => {}
        }
    }

    /// It is gone, without a word.
    pub fn kill(&mut self) {
        self.fail();
    }

    /// Takes another router's advert.
    pub fn handle_advert(&mut self, now: Micros, id: u16, priority: u8, say: &mut Vec<Say>) {
        match self.role {
            Role::Fault => {}
            Role::Backup if priority == 0 => self.timer = Some(now + self.skew()),
            Role::Backup if priority >= self.priority => {
                self.preempt_at = None;
                self.wait(now);
            }
            Role::Backup => {
                if now < *self.preempt_at.get_or_insert(now + self.preempt_delay) {
                    self.wait(now);
                }
            }
            Role::Master if priority == 0 => say.push(Say::Advert(self.priority)),
            Role::Master if (priority, id) > (self.priority, self.id) => self.wait(now),
            // Two were MASTER: the hosts may have believed the other.
            Role::Master => say.extend([Say::Advert(self.priority), Say::Here]),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Micros, say: &mut Vec<Say>) {
        if self.timer.is_none_or(|at| at > now) {
            return;
        }
        say.push(Say::Advert(self.priority));
        if self.role == Role::Backup {
            self.role = Role::Master;
            self.preempt_at = None;
            say.push(Say::Here);
        }
        self.timer = Some(now + ADVERT_INTERVAL);
    }

    fn wait(&mut self, now: Micros) {
        self.role = Role::Backup;
        self.timer = Some(now + 3 * ADVERT_INTERVAL + self.skew());
    }

    fn fail(&mut self) {
        self.role = Role::Fault;
        self.timer = None;
        self.preempt_at = None;
    }

    fn skew(&self) -> Micros {
        (256 - u64::from(self.priority)) * ADVERT_INTERVAL / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able(id: u16, priority: u8) -> Router {
        let mut router = Router::new(id, priority, PREEMPT_DELAY);
        router.set_able(0, true, &mut Vec::new());
        router
    }

    fn due(router: &mut Router) -> (Micros, Vec<Say>) {
        let at = router.poll_timeout().unwrap();
        let mut say = Vec::new();
        router.handle_timeout(at, &mut say);
        (at, say)
    }

    #[test]
    fn a_silent_master_is_followed_after_three_adverts_and_the_skew() {
        let mut router = able(1, 128);
        let (at, say) = due(&mut router);
        assert_eq!(at, millis(350));
        assert_eq!(say, [Say::Advert(128), Say::Here]);
        assert_eq!(router.role(), Role::Master);
        assert_eq!(due(&mut router), (millis(450), vec![Say::Advert(128)]));
    }

    #[test]
    fn a_master_that_resigns_is_followed_after_the_skew() {
        let mut master = able(1, 250);
        due(&mut master);
        let mut say = Vec::new();
        master.set_able(millis(400), false, &mut say);
        assert_eq!((master.role(), say), (Role::Fault, vec![Say::Advert(0)]));
        let mut backup = able(2, 192);
        backup.handle_advert(millis(400), 1, 0, &mut Vec::new());
        assert_eq!(due(&mut backup).0, millis(425));
    }

    #[test]
    fn the_higher_priority_wins() {
        let mut backup = able(1, 200);
        backup.handle_advert(millis(300), 2, 200, &mut Vec::new());
        assert!(backup.poll_timeout().unwrap() > millis(600), "an equal one is heard");
        let mut now = millis(500);
        while backup.poll_timeout().unwrap() > now + millis(100) {
            now += millis(100);
            backup.handle_advert(now, 3, 100, &mut Vec::new());
        }
        // It was heard for two seconds, from 600 ms on, and the last one that counted at 2500.
        assert_eq!(now, millis(2800), "a lower one is heard for a while");
        due(&mut backup);
        let mut say = Vec::new();
        backup.handle_advert(millis(2900), 3, 100, &mut say);
        assert_eq!(
            (backup.role(), say.as_slice()),
            (Role::Master, &[Say::Advert(200), Say::Here][..])
        );
        backup.handle_advert(millis(2900), 2, 200, &mut say);
        assert_eq!(backup.role(), Role::Backup, "of equals the higher address wins");
    }

    #[test]
    fn who_is_not_able_takes_no_part() {
        let mut router = Router::new(1, 250, PREEMPT_DELAY);
        assert_eq!(router.poll_timeout(), None);
        router.handle_advert(0, 2, 100, &mut Vec::new());
        assert_eq!(router.role(), Role::Fault);
        let mut router = able(1, 250);
        due(&mut router);
        router.kill();
        assert_eq!((router.role(), router.poll_timeout()), (Role::Fault, None));
    }
}
