//! A proxy that does to connections what networks do: it holds bytes up, hands them out in crumbs, and loses the line.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, sink},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::sleep,
};

/// What happens to what the server sends; nothing by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// How long each piece is held up.
    pub(crate) delay: Duration,
    /// The most bytes that are handed on at once; 0 is no limit.
    pub(crate) piece: usize,
    /// The most bytes that are handed on in a second; 0 is no limit.
    pub(crate) per_second: u32,
    /// After how many bytes the line is lost, and how.
    pub(crate) cut: Option<(usize, Cut)>,
}

/// How a line is lost.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Cut {
    /// Both sides are told of an end.
    Closed,
    /// Both sides are reset.
    Reset,
    /// Neither side is told: what is sent is lost.
    Silent,
}

/// A proxy before one server; its connections end with it.
pub(crate) struct FaultProxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    faults: Mutex<Faults>,
    cuts: AtomicUsize,
}

impl FaultProxy {
    pub(crate) async fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::<Shared>::default();
        let server = server.trim_start_matches("http://").to_owned();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, server, shared.clone()));
        Self { url, shared, _serving: serving }
    }

    /// Sets what happens to the connections that are made from now on.
    pub(crate) fn set(&self, faults: Faults) {
        *self.shared.faults.lock().expect("no panic") = faults;
    }

    /// Returns how many lines were lost so far.
    pub(crate) fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, server: String, shared: Arc<Shared>) {
    let mut lines = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, shared) = (server.clone(), shared.clone());
        lines.spawn(async move {
            let faults = shared.faults.lock().expect("no panic").clone();
            // The ends of lines are what this is about.
            let _ = relay(client, &server, faults, &shared).await;
        });
    }
}

/// Hands on what both sides send until one of them ends, or until the line is lost.
async fn relay(client: TcpStream, server: &str, faults: Faults, shared: &Shared) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::select! {
        sent = copy(&mut from_client, &mut to_server) => return sent.map(drop),
        cut = hand_on(&mut from_server, &mut to_client, faults) => {
            let Some(cut) = cut? else { return Ok(()) };
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            match cut {
                Cut::Closed => return Ok(()),
                Cut::Reset => {
                    from_client.as_ref().set_zero_linger()?;
                    from_server.as_ref().set_zero_linger()?;
                    return Ok(());
                }
                Cut::Silent => {}
            }
        }
    }
    // Both sides stay open for as long as the server thinks that somebody reads.
    copy(&mut from_server, &mut sink()).await.map(drop)
}

/// Hands the server's bytes on; returns how the line is to be lost when it is time, `None` at the server's end.
async fn hand_on(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    faults: Faults,
) -> io::Result<Option<Cut>> {
    let piece = if faults.piece == 0 { 16 * 1024 } else { faults.piece };
    let (mut buffer, mut handed) = (vec![0; piece], 0);
    loop {
        let left = faults.cut.map_or(usize::MAX, |(after, _)| after - handed);
        if left == 0 {
            return Ok(faults.cut.map(|(_, how)| how));
        }
        let count = from.read(&mut buffer[..piece.min(left)]).await?;
        if count == 0 {
            return Ok(None);
        }
        if !faults.delay.is_zero() {
            sleep(faults.delay).await;
        }
        to.write_all(&buffer[..count]).await?;
        handed += count;
        if faults.per_second > 0 {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            sleep(Duration::from_secs(1) * count / faults.per_second).await;
        }
    }
}
