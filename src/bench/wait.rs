//! Waiting for a moment more exactly than by the runtime's timer, which has whole milliseconds.

use std::io;

use tokio::time::Instant;

/// Waits for moments.
pub(super) enum Wait {
    /// By the runtime's timer: in simulated time, and where there is nothing better.
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "tests and other systems have it"))]
    Coarse,
    /// By a timer of the kernel's.
    #[cfg(target_os = "linux")]
    Fine(timer::Timer),
}

impl Wait {
    /// The most exact one there is.
    ///
    /// # Errors
    /// If the process has too many open files.
    pub(super) fn exact() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        return Ok(Self::Fine(timer::Timer::new()?));
        #[cfg(not(target_os = "linux"))]
        return Ok(Self::Coarse);
    }

    /// Returns when the moment has come, at once if it has passed.
    pub(super) async fn until(&self, moment: Instant) {
        match self {
            Self::Coarse => tokio::time::sleep_until(moment).await,
            #[cfg(target_os = "linux")]
            Self::Fine(timer) => timer.until(moment).await,
        }
    }
}

#[cfg(target_os = "linux")]
mod timer {
    //! `timerfd`, which the runtime waits for as for a socket.

    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// A timer of the kernel's.
    pub(in crate::bench) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types that change or close their descriptor; \
                      an `OwnedFd` does neither"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
        }

        pub(super) async fn until(&self, moment: Instant) {
            // A timer that can't be set or read is a defect of the kernel's: the request goes out
            // early then, and no figure is right. It is not waited for for ever.
            let _ = self.try_until(moment).await;
        }

        async fn try_until(&self, moment: Instant) -> io::Result<()> {
            let wait = moment.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(()); // a timer that is set to zero is switched off
            }
            let it_value = Timespec::try_from(wait).map_err(io::Error::other)?;
            let once = Itimerspec { it_interval: Timespec::default(), it_value };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            loop {
                let mut ready = self.0.readable().await?;
                let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut [0_u8; 8])?));
                if let Ok(read) = read {
                    return read.map(drop);
                }
            }
        }
    }
}
