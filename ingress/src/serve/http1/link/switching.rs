//! A connection that becomes a tunnel.

use tokio::sync::oneshot::{Receiver, channel};

use super::Link;
use crate::serve::{http1::arriving::Bare, prefixed::Prefixed};

impl Link {
    /// The connection, once its request is answered by 101.
    pub(in crate::serve::http1) fn upgraded(&self) -> Receiver<Bare> {
        let (sender, receiver) = channel();
        self.state.borrow_mut().upgrade = Some(sender);
        receiver
    }

    /// What follows is not HTTP: the connection is whose it is to be now.
    pub(in crate::serve::http1) fn switch(&self) {
        let upgrade = self.state.borrow_mut().upgrade.take();
        // The conversation is over, and a tunnel has deadlines of its own.
        let watch = self.client.watch();
        watch.disarm();
        watch.wake_when_expired();
        watch.forget();
        if let (Some(upgrade), Some((wire, unused))) = (upgrade, self.take()) {
            // Nobody waits for it if its endpoint is gone: then it ends here.
            _ = upgrade.send(Prefixed::new(unused, wire));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{
        codec::{Framing, h1::Asks},
        config::Timeouts,
        serve::{
            alone::{self, Woken},
            wire::Wire,
        },
    };

    /// A tunnel may last for days, and has deadlines of its own.
    #[tokio::test]
    async fn bug_what_a_request_waited_for_neither_wakes_nor_holds_its_task_behind_a_101() {
        let client = alone::client(Timeouts::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let link = Link::new(Wire::Plain(near), &client);
        let asks = Asks { upgrades: true, ..Asks::default() };
        let upgraded = link.begin(Framing::Empty, asks).upgraded();
        let woken = Arc::<Woken>::default();
        let watch = client.watch();
        watch.register(&woken.clone().into());
        // The client sent on before it had its answer.
        watch.wake_each_tick();
        // There was an answer.
        drop(client.begin());
        link.switch();
        assert!(upgraded.connection().await.is_some());
        alone::pass_at_once(&client.worker.clock, 1_000);
        assert!(!watch.expired());
        assert_eq!((woken.times(), Arc::strong_count(&woken)), (0, 1));
    }
}
