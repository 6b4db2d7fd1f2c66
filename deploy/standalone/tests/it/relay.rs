//! A wire between the two halves of a process that can be cut, frozen and mended.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What happens to what is sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Whole,
    /// Connections break, new ones at once.
    Cut,
    /// Connections stay, and nothing passes.
    Frozen,
}

/// The wire; it ends when dropped.
pub(crate) struct Relay {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _running: JoinSet<()>,
}

struct Shared {
    target: Mutex<String>,
    wire: watch::Sender<Wire>,
    /// Bytes that still pass to the target before the wire is cut.
    left: AtomicUsize,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (wire, _) = watch::channel(Wire::Whole);
        let left = AtomicUsize::new(usize::MAX);
        let shared = Arc::new(Shared { target: Mutex::default(), wire, left });
        let mut running = JoinSet::new();
        let accepting = shared.clone();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                connections.spawn(accepting.clone().carry(socket));
            }
        });
        Self { url, shared, _running: running }
    }

    /// Says where the other end is.
    pub(crate) fn leads_to(&self, url: &str) {
        let mut target = self.shared.target.lock().expect("no panic");
        url.trim_start_matches("http://").clone_into(&mut target);
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.shared.left.store(usize::MAX, Ordering::SeqCst);
        self.shared.wire.send_replace(wire);
    }

    /// Cuts the wire when so much more has been sent.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// Waits until the wire is cut.
    pub(crate) async fn is_cut(&self) {
        let mut wire = self.shared.wire.subscribe();
        wire.wait_for(|wire| *wire == Wire::Cut).await.expect("a relay");
    }
}

impl Shared {
    async fn carry(self: Arc<Self>, mut near: TcpStream) {
        let mut wire = self.wire.subscribe();
        if *wire.borrow_and_update() == Wire::Frozen {
            let _ = wire.changed().await;
            return;
        }
        let target = self.target.lock().expect("no panic").clone();
        let Ok(mut far) = TcpStream::connect(target).await else { return };
        let (mut forth, mut back) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
        loop {
            if *wire.borrow() == Wire::Cut {
                return;
            }
            tokio::select! {
                _ = wire.changed() => {
                    if *wire.borrow_and_update() == Wire::Frozen {
                        let _ = wire.changed().await;
                    }
                    return;
                }
                read = near.read(&mut forth) => {
                    let Ok(read @ 1..) = read else { return };
                    let left = self.left.load(Ordering::SeqCst);
                    if left < read {
                        self.wire.send_replace(Wire::Cut);
                        return;
                    }
                    self.left.store(if left == usize::MAX { left } else { left - read }, Ordering::SeqCst);
                    if far.write_all(&forth[..read]).await.is_err() { return }
                }
                read = far.read(&mut back) => {
                    let Ok(read @ 1..) = read else { return };
                    if near.write_all(&back[..read]).await.is_err() { return }
                }
            }
        }
    }
}
