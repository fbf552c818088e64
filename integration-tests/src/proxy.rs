//! A TCP proxy that cuts what goes through it: at random bytes, for random times, by a reset or by an end.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mobula_core::SplitMix64;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy before one address, on a thread of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens. It goes on listening while it cuts: nobody is refused.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    cut: watch::Sender<u64>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    random: Mutex<SplitMix64>,
    /// Bytes that a connection may carry, at most; 0 means as many as it likes.
    bytes_max: AtomicUsize,
    /// Milliseconds for which nobody gets through after a cut, at most.
    away_ms_max: AtomicU64,
    /// Nothing moves, and nobody is told.
    held: AtomicBool,
    cuts: AtomicU64,
}

impl Proxy {
    /// Listens, and carries bytes to `to` and back.
    ///
    /// # Panics
    /// If there is no port or no thread.
    pub fn start(to: SocketAddr, seed: u64) -> Proxy {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            to,
            random: Mutex::new(SplitMix64::new(seed)),
            bytes_max: AtomicUsize::new(0),
            away_ms_max: AtomicU64::new(0),
            held: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
        });
        let cut = watch::Sender::new(0);
        let (proxy, mut cuts) = (Arc::clone(&shared), cut.subscribe());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    loop {
                        tokio::select! {
                            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                                tokio::spawn(carry(Arc::clone(&proxy), cuts.clone(), stream));
                            },
                            // Its owner is gone.
                            gone = async { while cuts.changed().await.is_ok() {} } => break gone,
                        }
                    }
                });
            })
            .expect("a thread");
        Proxy { address, shared, cut }
    }

    /// From now on each new connection is cut after a random number of bytes, up to `bytes_max`, and the next one gets
    /// through only after a random time of up to `away_max`. 0 bytes: none is cut any more.
    pub fn cut_after(&self, bytes_max: usize, away_max: Duration) {
        self.shared.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.shared.away_ms_max.store(away_max.as_millis() as u64, Ordering::Relaxed);
    }

    /// Cuts all connections that there are.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// From now on nothing moves, without anybody being told, until it is let go again.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Relaxed);
    }

    /// How often it has cut a connection.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.random.lock().bits() % bound }
    }
}

async fn carry(shared: Arc<Shared>, mut cuts: watch::Receiver<u64>, mut near: TcpStream) {
    let Ok(mut far) = TcpStream::connect(shared.to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    cuts.mark_unchanged();
    let bytes_max = shared.bytes_max.load(Ordering::Relaxed);
    let mut left = match bytes_max {
        0 => usize::MAX,
        max => shared.below(max as u64) as usize,
    };
    let mut buffers = [vec![0; 16 * 1024], vec![0; 16 * 1024]];
    let [there, back] = &mut buffers;
    loop {
        let most = left.min(there.len());
        if shared.held.load(Ordering::Relaxed) {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(2)) => continue,
                _ = cuts.changed() => break,
            }
        }
        let (count, forth) = tokio::select! {
            count = near.read(&mut there[..most]) => (count, true),
            count = far.read(&mut back[..most]) => (count, false),
            _ = cuts.changed() => break,
            // Whether it is held is looked at now and then.
            () = tokio::time::sleep(Duration::from_millis(10)) => continue,
        };
        // What was read before it was held does not move, either.
        while shared.held.load(Ordering::Relaxed) && !cuts.has_changed().unwrap_or(true) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if cuts.has_changed().unwrap_or(true) {
            break;
        }
        let moved = match forth {
            true => pass(count, there, &mut far).await,
            false => pass(count, back, &mut near).await,
        };
        match moved {
            Ok(count) if count > 0 => left -= count,
            // An end of the one is an end of the other.
            _ => return,
        }
        if left == 0 {
            break;
        }
    }
    shared.cuts.fetch_add(1, Ordering::Relaxed);
    if shared.below(2) == 0 {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    } else {
        let _ = (near.shutdown().await, far.shutdown().await);
    }
    drop(far);
    let away_ms = shared.below(shared.away_ms_max.load(Ordering::Relaxed));
    if away_ms > 0 {
        // Both lanes, and whoever comes meanwhile.
        shared.held.store(true, Ordering::Relaxed);
        drop(near);
        tokio::time::sleep(Duration::from_millis(away_ms)).await;
        shared.held.store(false, Ordering::Relaxed);
    }
}

async fn pass(count: io::Result<usize>, bytes: &[u8], to: &mut TcpStream) -> io::Result<usize> {
    let count = count?;
    to.write_all(&bytes[..count]).await?;
    Ok(count)
}
