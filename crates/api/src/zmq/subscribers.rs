//! One address at which subscribers connect: who they are, what they want, and what waits for each.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::zmtp::{self, Said, ZmtpError};
use crate::backend::Stop;

/// Subscribers at one address; more wait in the kernel's queue.
const MAX_SUBSCRIBERS: usize = 128;
/// Topics that one subscriber asks for.
const MAX_TOPICS: usize = 64;
/// A subscriber has to say who it is within this time.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// A subscriber that takes nothing for so long is gone.
const STUCK: Duration = Duration::from_secs(300);

/// Those who are connected to one address.
#[derive(Default)]
pub(super) struct Subscribers {
    all: Mutex<Vec<Arc<Subscriber>>>,
    high_water: usize,
}

struct Subscriber {
    topics: Mutex<Vec<Bytes>>,
    queue: mpsc::Sender<Bytes>,
}

impl Subscriber {
    fn topics(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, topic: &str) -> bool {
        self.topics().iter().any(|prefix| topic.as_bytes().starts_with(prefix))
    }
}

impl Subscribers {
    /// For an address at which up to `high_water` messages wait for each subscriber.
    pub(super) fn new(high_water: usize) -> Self {
        Self {
            all: Mutex::default(),
            high_water,
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Subscriber>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives those who want a topic what `message` makes; who has too much waiting misses it.
    pub(super) fn send(&self, topic: &str, message: impl FnOnce() -> Bytes) {
        let wanting: Vec<Arc<Subscriber>> = self.all().iter().filter(|one| one.wants(topic)).cloned().collect();
        if wanting.is_empty() {
            return;
        }
        let message = message();
        for one in wanting {
            let _ = one.queue.try_send(message.clone());
        }
    }

    /// Serves those who connect until `stop` is pulled.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, stop: Stop) {
        let slots = Arc::new(Semaphore::new(MAX_SUBSCRIBERS));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            };
            let (slot, stream) = tokio::select! {
                (slot, accepted) = accept => (slot, accepted),
                () = stop.wait() => return,
            };
            let Ok((stream, from)) = stream else {
                // Out of descriptors, most likely: wait for some to close instead of spinning.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let here = Arc::clone(&self);
            connections.spawn(async move {
                let _slot = slot;
                if let Err(error) = here.serve_one(stream).await {
                    tracing::debug!("the ZeroMQ subscriber at {from} is gone: {error}");
                }
            });
            while connections.try_join_next().is_some() {}
        }
    }

    async fn serve_one(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = BytesMut::new();
        tokio::time::timeout(HANDSHAKE, shake_hands(&mut stream, &mut buffer)).await??;
        let (queue, waiting) = mpsc::channel(self.high_water);
        let subscriber = Arc::new(Subscriber {
            topics: Mutex::default(),
            queue,
        });
        self.all().push(Arc::clone(&subscriber));
        let result = serve_subscriber(&mut stream, &mut buffer, &subscriber, waiting).await;
        self.all().retain(|one| !Arc::ptr_eq(one, &subscriber));
        result
    }
}

fn refused(error: ZmtpError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn shake_hands(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    stream.write_all(&zmtp::GREETING).await?;
    let mut greeting = [0; zmtp::GREETING_BYTES];
    stream.read_exact(&mut greeting).await?;
    zmtp::check_greeting(&greeting).map_err(refused)?;
    stream.write_all(&zmtp::ready()).await?;
    loop {
        if let Some((flags, body)) = zmtp::next_frame(buffer).map_err(refused)? {
            return zmtp::check_ready(flags, &body).map_err(refused);
        }
        read_more(stream, buffer).await?;
    }
}

async fn read_more(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut BytesMut) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn serve_subscriber(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    subscriber: &Subscriber,
    mut waiting: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    loop {
        while let Some((flags, body)) = zmtp::next_frame(buffer).map_err(refused)? {
            match zmtp::said(flags, &body) {
                Said::Subscribe(topic) => {
                    let mut topics = subscriber.topics();
                    if topics.len() >= MAX_TOPICS {
                        return Err(io::Error::other("it subscribes to too much"));
                    }
                    topics.push(Bytes::copy_from_slice(&topic));
                }
                Said::Cancel(topic) => {
                    let mut topics = subscriber.topics();
                    if let Some(at) = topics.iter().position(|known| *known == topic) {
                        topics.swap_remove(at);
                    }
                }
                Said::Ping(pong) => tokio::time::timeout(STUCK, writer.write_all(&pong)).await??,
                Said::Nothing => {}
            }
        }
        tokio::select! {
            // Both wait without losing anything when the other comes first.
            read = read_more(&mut reader, buffer) => read?,
            Some(message) = waiting.recv() => tokio::time::timeout(STUCK, writer.write_all(&message)).await??,
        }
    }
}
