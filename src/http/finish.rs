//! Work that is done to its end, whether or not somebody waits for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Work that goes on by itself when whoever waits for it goes away. As long as somebody waits it
/// costs no task of its own.
pub struct Finish<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Finish<T> {
    /// The work; it begins when it is first waited for.
    pub fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // If the work panics it is gone.
        let Some(mut work) = self.0.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        if let Some(work) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_is_done_where_it_is_waited_for() {
        assert_eq!(Finish::new(async { 7 }).await, 7);
    }

    #[tokio::test]
    async fn it_goes_on_when_nobody_waits_any_more() {
        let (say, said) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let mut work = Finish::new(async move {
            end.send(said.await.unwrap()).unwrap();
        });
        assert!(poll!(&mut work).is_pending());
        drop(work);
        say.send(3_u8).unwrap();
        assert_eq!(ended.await, Ok(3));
    }
}
