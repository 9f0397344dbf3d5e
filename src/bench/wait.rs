//! Waiting for a moment more exactly than by the runtime's timer, which has whole milliseconds.

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
    pub(in crate::bench) struct Wait(AsyncFd<OwnedFd>);

    impl Wait {
        /// A timer that can be waited for in this runtime.
        ///
        /// # Errors
        /// If the process has too many open files.
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types that change or close their descriptor; \
                      an `OwnedFd` does neither"
        )]
        pub(in crate::bench) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
        }

        /// Returns when the moment has come, at once if it has passed.
        pub(in crate::bench) async fn until(&self, moment: Instant) {
            // Without this timer there is the other one.
            if self.try_until(moment).await.is_err() {
                tokio::time::sleep_until(moment).await;
            }
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

#[cfg(not(target_os = "linux"))]
mod timer {
    //! The runtime's timer, for want of a better one.

    use std::io;

    use tokio::time::Instant;

    /// Nothing but the runtime's timer.
    pub(in crate::bench) struct Wait;

    impl Wait {
        pub(in crate::bench) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(in crate::bench) async fn until(&self, moment: Instant) {
            tokio::time::sleep_until(moment).await;
        }
    }
}

pub(super) use timer::Wait;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn nobody_is_woken_before_the_moment_and_one_that_has_passed_is_not_waited_for() {
        let wait = Wait::new().unwrap();
        for micros in [300, 0, 2_500] {
            let moment = Instant::now() + Duration::from_micros(micros);
            wait.until(moment).await;
            assert!(Instant::now() >= moment);
        }
        wait.until(Instant::now() - Duration::from_secs(1)).await;
    }
}
