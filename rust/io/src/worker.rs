//! The thread that drives a node: packets between it and the device, and its timers.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jsync_core::packet::{OwnedPacket, Packet};
use jsync_core::stats::Counter;
use jsync_core::time::Time;
use parking_lot::{Mutex, MutexGuard};

use crate::memory::{Ahead, Unused};
use crate::port::{Counts, Devices, Port};
use crate::{DeviceError, EventFd, Tun, clock, fd};

/// What the worker drives. See `jsync_core` for the meaning of each.
pub trait Engine: Send + 'static {
    /// Translates a burst in place.
    fn handle_packets(&mut self, now: Time, burst: &mut [Packet<'_>]);
    /// The next packet that the engine itself has to send.
    fn poll_packet(&mut self) -> Option<OwnedPacket>;
    /// Does what is due.
    fn handle_timeout(&mut self, now: Time);
    /// When `handle_timeout` is to be called next.
    fn poll_timeout(&self) -> Option<Time>;
    /// Whether there are frames or events to be fetched.
    fn has_output(&mut self, now: Time) -> bool;
    /// Counts something that happened at the device.
    fn count(&mut self, counter: Counter, n: u64);
    /// Addresses of memory that it will use, from the beginning of each stretch on.
    fn unused_memory(&self) -> Unused;
}

/// What became of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// No device is attached; timers run.
    Stopped,
    /// It serves the device.
    Running,
    /// The device failed or was removed, and why; timers run.
    DeviceLost(String),
    /// It panicked, with this message. Nothing runs any more.
    Panicked(String),
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Running => f.write_str("running"),
            Self::DeviceLost(why) => write!(f, "device lost: {why}"),
            Self::Panicked(message) => write!(f, "worker panicked: {message}"),
        }
    }
}

/// An engine with the thread that drives it. Dropping it ends the thread and closes the device.
#[derive(Debug)]
pub struct Driver<E: Engine> {
    shared: Arc<Shared<E>>,
    thread: Mutex<Option<JoinHandle<Option<Devices>>>>,
}

#[derive(Debug)]
struct Shared<E> {
    slot: Mutex<Slot<E>>,
    /// Wakes the worker.
    kick: EventFd,
    /// Readable while the engine has frames or events.
    output: EventFd,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Slot<E> {
    engine: E,
    /// Packets that somebody else than the worker made the engine send.
    packets: Vec<OwnedPacket>,
    /// When the worker will wake by itself.
    wakes: Option<Time>,
    /// Pages that the engine will need soon.
    ahead: Ahead,
    /// `output` is raised.
    raised: bool,
    /// The longest time for which somebody else than the worker kept packets waiting.
    longest_pause: Duration,
    state: WorkerState,
    /// Why the worker lost its device or ended; nobody has fetched it yet.
    notice: Option<WorkerState>,
}

impl<E: Engine> Slot<E> {
    /// After whatever the engine did: makes `output` readable if there is some, and only then.
    fn announce(&mut self, now: Time, output: &EventFd) {
        let has_output = self.notice.is_some() || self.engine.has_output(now);
        match (self.raised, has_output) {
            (false, true) => output.raise(),
            (true, false) => output.clear(),
            _ => {}
        }
        self.raised = has_output;
        self.ahead.follow(self.engine.unused_memory());
    }
}

impl<E> Shared<E> {
    /// The worker has no device any more.
    fn failed(&self, state: WorkerState) {
        let mut slot = self.slot.lock();
        slot.state = state.clone();
        slot.notice = Some(state);
        slot.raised = true;
        self.output.raise();
    }
}

impl<E: Engine> Driver<E> {
    /// Starts the thread, with timers and without a device.
    ///
    /// # Errors
    /// No file descriptor or no thread is to be had.
    pub fn new(engine: E) -> io::Result<Self> {
        let slot = Slot {
            engine,
            packets: Vec::new(),
            wakes: None,
            ahead: Ahead::new()?,
            raised: false,
            longest_pause: Duration::ZERO,
            state: WorkerState::Stopped,
            notice: None,
        };
        let shared = Arc::new(Shared {
            slot: Mutex::new(slot),
            kick: EventFd::new()?,
            output: EventFd::new()?,
            stop: AtomicBool::new(false),
        });
        let thread = Mutex::new(Some(spawn(&shared, None)?));
        Ok(Self { shared, thread })
    }

    /// Gives the thread the device that `open` opens.
    ///
    /// # Errors
    /// There is one already, the worker panicked, or `open` failed.
    pub fn attach(
        &self,
        open: impl FnOnce() -> Result<Tun, DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut thread = self.thread.lock();
        match self.state() {
            WorkerState::Running => return Err(DeviceError::Attached),
            state @ WorkerState::Panicked(_) => return Err(DeviceError::Dead(state.to_string())),
            WorkerState::Stopped | WorkerState::DeviceLost(_) => {}
        }
        let tun = open()?;
        self.join(&mut thread);
        self.go_on(&mut thread, Devices::new(tun))
    }

    /// Has packets with these marks, none of which is 0, come from a device each beside the one
    /// attached. `open` opens those that are missing; those of other marks are removed.
    ///
    /// # Errors
    /// No device is attached, or `open` failed: then the devices are those from before, less those
    /// of other marks.
    pub fn follow_marks(
        &self,
        marks: &[u32],
        mut open: impl FnMut(u32) -> Result<Tun, DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut thread = self.thread.lock();
        if self.state() != WorkerState::Running {
            return if marks.is_empty() { Ok(()) } else { Err(DeviceError::NotAttached) };
        }
        let mut devices = self.join(&mut thread).ok_or(DeviceError::NotAttached)?;
        let opened = devices.follow(marks, &mut open);
        self.go_on(&mut thread, devices)?;
        opened
    }

    /// Gives devices to a new thread.
    fn go_on(
        &self,
        thread: &mut Option<JoinHandle<Option<Devices>>>,
        devices: Devices,
    ) -> Result<(), DeviceError> {
        self.shared.slot.lock().state = WorkerState::Running;
        *thread = Some(spawn(&self.shared, Some(devices)).map_err(|error| {
            self.shared.slot.lock().state = WorkerState::Stopped;
            DeviceError::Os("start a thread", error)
        })?);
        Ok(())
    }

    /// Takes the devices away and removes them. Does nothing without one. Timers go on.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn detach(&self) -> io::Result<()> {
        let mut thread = self.thread.lock();
        if let Some(devices) = self.join(&mut thread) {
            devices.remove();
        }
        if !matches!(self.state(), WorkerState::Panicked(_)) {
            self.shared.slot.lock().state = WorkerState::Stopped;
            *thread = Some(spawn(&self.shared, None)?);
        }
        Ok(())
    }

    /// Ends the thread; returns the devices that it served.
    fn join(&self, thread: &mut Option<JoinHandle<Option<Devices>>>) -> Option<Devices> {
        let thread = thread.take()?;
        self.shared.stop.store(true, Ordering::Release);
        self.shared.kick.raise();
        let devices = thread.join().ok().flatten();
        self.shared.stop.store(false, Ordering::Release);
        devices
    }

    /// What became of the worker.
    pub fn state(&self) -> WorkerState {
        self.shared.slot.lock().state.clone()
    }

    /// How the worker lost its device or ended, if it did since the last call.
    pub fn take_notice(&self) -> Option<WorkerState> {
        let mut slot = self.shared.slot.lock();
        let notice = slot.notice.take();
        slot.announce(clock::now(), &self.shared.output);
        notice
    }

    /// Reads the engine.
    pub fn read<R>(&self, f: impl FnOnce(&E) -> R) -> R {
        let slot = self.shared.slot.lock();
        let begin = clock::cpu_time();
        let result = f(&slot.engine);
        release(slot, begin);
        result
    }

    /// The longest time for which `read` or `update` held the engine, and packets waited, in time
    /// on a CPU: what else the machine does is not in it.
    pub fn longest_pause(&self) -> Duration {
        self.shared.slot.lock().longest_pause
    }

    /// Changes the engine, or takes output from it. Packets that this makes it send and an earlier
    /// timeout are seen to.
    pub fn update<R>(&self, f: impl FnOnce(&mut E, Time) -> R) -> R {
        let mut slot = self.shared.slot.lock();
        let begin = clock::cpu_time();
        let now = clock::now();
        let Slot { engine, packets, wakes, .. } = &mut *slot;
        let result = f(engine, now);
        packets.extend(std::iter::from_fn(|| engine.poll_packet()));
        let earlier = match (engine.poll_timeout(), *wakes) {
            (Some(timeout), Some(wakes)) => timeout < wakes,
            (timeout, None) => timeout.is_some(),
            (None, Some(_)) => false,
        };
        let kick = earlier || !packets.is_empty();
        slot.announce(now, &self.shared.output);
        release(slot, begin);
        if kick {
            self.shared.kick.raise();
        }
        result
    }

    /// Readable while the engine has frames or events, or the worker a notice.
    pub fn output_fd(&self) -> BorrowedFd<'_> {
        self.shared.output.as_fd()
    }
}

impl<E: Engine> Drop for Driver<E> {
    fn drop(&mut self) {
        let mut thread = self.thread.lock();
        self.join(&mut thread);
    }
}

/// Lets go of an engine held since `begin`: to the worker at once if it waits. Who takes frames in a
/// loop would have it again before the worker is awake.
fn release<E>(mut slot: MutexGuard<'_, Slot<E>>, begin: Duration) {
    slot.longest_pause = slot.longest_pause.max(clock::cpu_time().saturating_sub(begin));
    MutexGuard::unlock_fair(slot);
}

fn spawn<E: Engine>(
    shared: &Arc<Shared<E>>,
    devices: Option<Devices>,
) -> io::Result<JoinHandle<Option<Devices>>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("jsync-worker".into()).spawn(move || {
        // After a panic the engine isn't used by this thread again, and Python is told.
        catch_unwind(AssertUnwindSafe(|| run(&shared, devices))).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref().copied()).unwrap_or("?");
            shared.failed(WorkerState::Panicked(message.into()));
            None
        })
    })
}

/// Until it is told to stop: packets, timers, output. Returns the devices.
fn run<E: Engine>(shared: &Shared<E>, devices: Option<Devices>) -> Option<Devices> {
    let mut port = devices.map(Port::new);
    let mut counts = Counts::default();
    while !shared.stop.load(Ordering::Acquire) {
        let Err(why) = turn(shared, port.as_mut(), &mut counts) else { continue };
        // Closing a device that fails takes its carrier, which is what others watch.
        assert!(port.take().is_some(), "{why}");
        shared.failed(WorkerState::DeviceLost(why));
    }
    port.map(Port::into_devices)
}

/// Moves what packets there are; waits for something to do if there are no more.
///
/// # Errors
/// Why a device can't be used any more.
fn turn<E: Engine>(
    shared: &Shared<E>,
    mut port: Option<&mut Port>,
    counts: &mut Counts,
) -> Result<(), String> {
    let (wakes, idle) = match &mut port {
        Some(port) => port.serve(counts, |burst, counts| pass(shared, burst, counts))?,
        None => {
            let (wakes, packets) = pass(shared, &mut [], counts);
            counts.down += packets.len() as u64;
            (wakes, true)
        }
    };
    if idle {
        wait(shared, port.as_deref(), wakes).map_err(|error| format!("poll: {error}"))?;
    }
    Ok(())
}

fn wait<E: Engine>(shared: &Shared<E>, port: Option<&Port>, wakes: Option<Time>) -> io::Result<()> {
    let timeout = wakes.map(|time| time.millis_since(clock::now()));
    let devices = port.into_iter().flat_map(Port::fds);
    if fd::wait(std::iter::once(shared.kick.as_fd()).chain(devices), timeout)? {
        shared.kick.clear();
    }
    Ok(())
}

/// One turn with the engine, and the only place where the worker holds its lock: timers that are
/// due, the burst, what it sends of its own. Returns when it wants to wake, and those packets.
fn pass<E: Engine>(
    shared: &Shared<E>,
    burst: &mut [Packet<'_>],
    counts: &mut Counts,
) -> (Option<Time>, Vec<OwnedPacket>) {
    let mut slot = shared.slot.lock();
    let now = clock::now();
    let Slot { engine, packets, wakes, .. } = &mut *slot;
    let mut packets = std::mem::take(packets);
    counts.flush(engine);
    if engine.poll_timeout().is_some_and(|timeout| timeout <= now) {
        engine.handle_timeout(now);
        packets.extend(std::iter::from_fn(|| engine.poll_packet()));
    }
    if !burst.is_empty() {
        engine.handle_packets(now, burst);
        packets.extend(std::iter::from_fn(|| engine.poll_packet()));
    }
    *wakes = engine.poll_timeout();
    slot.announce(now, &shared.output);
    (slot.wakes, packets)
}

impl Counts {
    fn flush<E: Engine>(&mut self, engine: &mut E) {
        for (counter, n) in [
            (Counter::DeviceRefused, &mut self.refused),
            (Counter::DeviceDown, &mut self.down),
            (Counter::DeviceBadOffload, &mut self.bad_offload),
        ] {
            if *n > 0 {
                engine.count(counter, std::mem::take(n));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnet;
    use jsync_core::packet::{Gso, Offload, Outcome};
    use std::collections::VecDeque;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use std::time::{Duration, Instant};

    /// Sends every packet back with its first payload byte one higher and its mark for a TTL; more
    /// by command.
    #[derive(Default)]
    struct Echo {
        packets: VecDeque<OwnedPacket>,
        timeout: Option<Time>,
        timeouts: u32,
        output: bool,
        bad_offload: u64,
        down: u64,
        panic: bool,
    }

    impl Engine for Echo {
        fn handle_packets(&mut self, _now: Time, burst: &mut [Packet<'_>]) {
            assert!(!self.panic, "told to");
            for packet in burst {
                packet.bytes_mut()[28] += 1;
                packet.bytes_mut()[8] = packet.mark as u8;
                packet.outcome = Outcome::Forward;
            }
        }
        fn poll_packet(&mut self) -> Option<OwnedPacket> {
            self.packets.pop_front()
        }
        fn handle_timeout(&mut self, _now: Time) {
            self.timeouts += 1;
            self.timeout = None;
        }
        fn poll_timeout(&self) -> Option<Time> {
            self.timeout
        }
        fn has_output(&mut self, _now: Time) -> bool {
            self.output
        }
        fn count(&mut self, counter: Counter, n: u64) {
            match counter {
                Counter::DeviceBadOffload => self.bad_offload += n,
                Counter::DeviceDown => self.down += n,
                _ => panic!("{counter:?}"),
            }
        }
        fn unused_memory(&self) -> Unused {
            [0..0, 0..0]
        }
    }

    /// A driver with a device whose other end is ours.
    fn driver() -> (Driver<Echo>, UnixDatagram) {
        let (tun, ours) = device();
        let driver = Driver::new(Echo::default()).unwrap();
        driver.attach(|| Ok(tun)).unwrap();
        (driver, ours)
    }

    fn eventually(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(5));
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn readable(driver: &Driver<Echo>) -> bool {
        fd::wait([driver.output_fd()], Some(0)).unwrap()
    }

    /// A UDP packet behind its virtio_net_hdr.
    fn udp(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; vnet::LEN + len];
        (bytes[vnet::LEN], bytes[vnet::LEN + 9]) = (0x45, 17);
        bytes
    }

    #[test]
    fn packets_of_any_size_come_back() {
        let (driver, device) = driver();
        let offload = Offload { partial_checksum: true, gso: Gso::Udp, gso_size: 1472 };
        for lens in [[29, 1500, 65535], [65575, 29, 65575], [100, 30, 31]] {
            let mut sent = lens.map(|len| {
                let mut bytes = udp(len);
                let header = vnet::encode(offload, &bytes[vnet::LEN..]).unwrap();
                bytes[..vnet::LEN].copy_from_slice(&header);
                device.send(&bytes).unwrap();
                bytes
            });
            for bytes in &mut sent {
                let mut back = vec![0; 70_000];
                let got = device.recv(&mut back).unwrap();
                bytes[vnet::LEN + 28] += 1;
                assert_eq!(back[..got], *bytes);
            }
        }
        assert_eq!(driver.state(), WorkerState::Running);
    }

    #[test]
    fn bad_offloads_are_counted() {
        let (driver, device) = driver();
        let mut bytes = udp(60);
        bytes[1] = 3;
        device.send(&bytes).unwrap();
        device.send(&udp(30)).unwrap();
        assert_eq!(device.recv(&mut [0; 100]).unwrap(), 40);
        driver.update(|echo, now| echo.timeout = Some(now));
        eventually(|| driver.read(|echo| echo.bad_offload == 1));
    }

    #[test]
    fn others_changes_wake_the_worker() {
        let (driver, device) = driver();
        let packet = OwnedPacket { bytes: vec![1, 2, 3], offload: Offload::default() };
        driver.update(|echo, _| echo.packets.push_back(packet));
        let mut back = [0; 20];
        assert_eq!(device.recv(&mut back).unwrap(), vnet::LEN + 3);
        assert_eq!(back[vnet::LEN..][..3], [1, 2, 3]);

        driver.update(|echo, now| echo.timeout = Some(now + 20));
        eventually(|| driver.read(|echo| echo.timeouts == 1));
        driver.detach().unwrap();
        driver.update(|echo, now| echo.timeout = Some(now + 20));
        eventually(|| driver.read(|echo| echo.timeouts == 2));

        let packet = OwnedPacket { bytes: vec![1, 2, 3], offload: Offload::default() };
        driver.update(|echo, _| echo.packets.push_back(packet));
        eventually(|| {
            driver.update(|echo, now| echo.timeout = Some(now));
            driver.read(|echo| echo.down == 1)
        });
    }

    #[test]
    fn output_is_announced_until_it_is_taken() {
        let (driver, device) = driver();
        assert!(!readable(&driver));
        driver.update(|echo, _| echo.output = true);
        assert!(readable(&driver));
        driver.update(|_, _| ());
        assert!(readable(&driver));
        driver.update(|echo, _| echo.output = false);
        assert!(!readable(&driver));
        // The worker announces it too.
        driver.shared.slot.lock().engine.output = true;
        device.send(&udp(40)).unwrap();
        eventually(|| readable(&driver));
    }

    #[test]
    fn a_lost_device_is_told_and_may_come_back() {
        let (driver, device) = driver();
        device.send(&[]).unwrap();
        eventually(|| matches!(driver.state(), WorkerState::DeviceLost(_)));
        assert!(readable(&driver));
        driver.update(|_, _| ());
        assert!(readable(&driver), "until the notice is taken");
        assert_eq!(driver.take_notice(), Some(driver.state()));
        driver.update(|_, _| ());
        assert!(!readable(&driver));
        driver.update(|echo, now| echo.timeout = Some(now));
        eventually(|| driver.read(|echo| echo.timeouts == 1));

        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        driver.attach(|| Ok(Tun::fake(OwnedFd::from(theirs)))).unwrap();
        ours.send(&udp(40)).unwrap();
        assert_eq!(ours.recv(&mut [0; 100]).unwrap(), 50);
        let refused = driver.attach(|| panic!("not called"));
        assert!(matches!(refused, Err(DeviceError::Attached)));
    }

    /// A device and its other end.
    fn device() -> (Tun, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Tun::fake(OwnedFd::from(theirs)), ours)
    }

    #[test]
    fn each_mark_has_a_device_and_all_leave_by_the_first() {
        let (driver, main) = driver();
        let (five, marked5) = device();
        let (six, marked6) = device();
        let mut ends = vec![six, five];
        driver.follow_marks(&[5, 6], |_| Ok(ends.pop().unwrap())).unwrap();
        driver.follow_marks(&[6, 5], |_| panic!("both are there")).unwrap();
        let mut back = [0; 100];
        for (device, mark) in [(&marked5, 5), (&main, 0), (&marked6, 6), (&marked5, 5)] {
            device.send(&udp(40)).unwrap();
            assert_eq!(main.recv(&mut back).unwrap(), vnet::LEN + 40);
            assert_eq!(back[vnet::LEN + 8], mark);
        }
        // One goes while another has packets; nothing of the others is lost.
        for _ in 0..100 {
            marked6.send(&udp(40)).unwrap();
        }
        driver.follow_marks(&[6], |_| panic!("it is there")).unwrap();
        assert!(marked5.send(&udp(40)).is_err(), "it is closed");
        for _ in 0..100 {
            main.recv(&mut back).unwrap();
            assert_eq!(back[vnet::LEN + 8], 6);
        }
        let refused = driver.follow_marks(&[6, 7], |mark| {
            assert_eq!(mark, 7);
            Err(DeviceError::NoDriver)
        });
        assert!(matches!(refused, Err(DeviceError::NoDriver)));
        marked6.send(&udp(40)).unwrap();
        main.recv(&mut back).unwrap();
        driver.detach().unwrap();
        assert!(marked6.send(&udp(40)).is_err());
        let refused = driver.follow_marks(&[5], |_| panic!("not called"));
        assert!(matches!(refused, Err(DeviceError::NotAttached)));
    }

    /// A device with more packets than can be moved leaves room for the others.
    #[test]
    fn a_busy_device_keeps_no_other_waiting() {
        let (driver, main) = driver();
        let (five, marked) = device();
        let mut ends = vec![five];
        driver.follow_marks(&[5], |_| Ok(ends.pop().unwrap())).unwrap();
        let busy = main.try_clone().unwrap();
        let flood = thread::spawn(move || while busy.send(&udp(41)).is_ok() {});
        let mut back = [0; 100];
        marked.send(&udp(40)).unwrap();
        let start = Instant::now();
        while back[vnet::LEN + 8] != 5 {
            main.recv(&mut back).unwrap();
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        drop(driver);
        flood.join().unwrap();
    }

    #[test]
    fn a_panic_is_told_and_final() {
        let (driver, device) = driver();
        driver.update(|echo, _| echo.panic = true);
        device.send(&udp(40)).unwrap();
        eventually(|| driver.state() == WorkerState::Panicked("told to".into()));
        assert!(readable(&driver));
        driver.detach().unwrap();
        assert_eq!(driver.take_notice(), Some(WorkerState::Panicked("told to".into())));
        let refused = driver.attach(|| panic!("not called"));
        assert!(matches!(refused, Err(DeviceError::Dead(_))));
    }
}
