//! I2P through its router's SAM bridge, version 3.1: a session under a key that is kept, dials, and links taken in.
//!
//! The session lasts as long as its control connection. Every link is a connection to the bridge of its own, which
//! becomes the link after one line in each direction.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::Alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use dunlin_peer::{Codec, Direction, Host, Machine, NetAddr};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::driver::Driver;

/// The router may have to search its network before it answers.
const ANSWER: Duration = Duration::from_secs(3 * 60);
/// Longest line that is read.
const MAX_LINE: usize = 65_536;
/// The pause after the bridge failed, doubled up to the second.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Where the bridge is and under which key we listen.
#[derive(Clone, Debug)]
pub struct SamConfig {
    /// The bridge.
    pub addr: SocketAddr,
    /// The file of our private key, as the bridge gave it; made when there is none.
    pub key: PathBuf,
    /// Take links in.
    pub accept: bool,
    /// Is told our address whenever a session begins.
    pub found: Sender<NetAddr>,
}

/// Our place on I2P.
pub(crate) struct Session {
    config: SamConfig,
    open: Mutex<Option<Open>>,
}

struct Open {
    id: String,
    /// The session ends with it.
    control: TcpStream,
}

impl Session {
    pub(crate) fn new(config: SamConfig) -> Self {
        Self {
            config,
            open: Mutex::new(None),
        }
    }

    /// Dials a destination by the hash that names it.
    pub(crate) async fn connect(&self, to: NetAddr) -> io::Result<TcpStream> {
        let id = self.id().await?;
        let mut stream = self.hello().await?;
        let found = ask(&mut stream, &format!("NAMING LOOKUP NAME={}", to.host)).await?;
        let destination = value(&found, "VALUE").ok_or_else(|| failed(&found))?;
        let connect = format!("STREAM CONNECT ID={id} DESTINATION={destination} SILENT=false");
        let answer = ask(&mut stream, &connect).await?;
        self.check(&answer).await?;
        Ok(stream)
    }

    /// Waits for somebody who dials us.
    async fn accept(&self) -> io::Result<(TcpStream, NetAddr)> {
        let id = self.id().await?;
        let mut stream = self.hello().await?;
        let answer = ask(&mut stream, &format!("STREAM ACCEPT ID={id} SILENT=false")).await?;
        self.check(&answer).await?;
        let line = read_line(&mut stream).await?;
        // The destination may be followed by ports.
        let destination = line.split(' ').next().unwrap_or_default();
        match decode(destination) {
            Some(bytes) => Ok((stream, name(&bytes))),
            None => {
                self.check(&line).await?;
                Err(failed(&line))
            }
        }
    }

    /// The session's id; begins one when there is none.
    async fn id(&self) -> io::Result<String> {
        let mut open = self.open.lock().await;
        if let Some(open) = &*open
            && is_alive(&open.control)
        {
            return Ok(open.id.clone());
        }
        *open = None;
        let mut control = self.hello().await?;
        let key = match std::fs::read(&self.config.key) {
            Ok(key) => key,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Signature type 7 is Ed25519; without it some bridges make a key that others refuse.
                let made = ask(&mut control, "DEST GENERATE SIGNATURE_TYPE=7").await?;
                let key = value(&made, "PRIV").and_then(decode).ok_or_else(|| failed(&made))?;
                crate::files::write_secret(&self.config.key, &key)?;
                key
            }
            Err(error) => return Err(error),
        };
        let own = destination(&key).map(name);
        let own = own.ok_or_else(|| io::Error::other(format!("{} holds no I2P key", self.config.key.display())))?;
        let id = format!("{:016x}", rand::random::<u64>());
        let create = format!(
            "SESSION CREATE STYLE=STREAM ID={id} DESTINATION={} i2cp.leaseSetEncType=4,0 inbound.quantity=3 \
             outbound.quantity=3",
            alphabet().encode(&key)
        );
        let answer = ask(&mut control, &create).await?;
        succeeded(&answer)?;
        tracing::info!("our I2P address is {own}");
        if self.config.accept {
            // Whoever wants to hear of it is gone only when the process stops.
            let _ = self.config.found.send(own);
        }
        *open = Some(Open {
            id: id.clone(),
            control,
        });
        Ok(id)
    }

    async fn hello(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.config.addr).await?;
        let answer = ask(&mut stream, "HELLO VERSION MIN=3.1 MAX=3.1").await?;
        succeeded(&answer)?;
        Ok(stream)
    }

    /// Leaves the session when the bridge no longer knows it.
    async fn check(&self, answer: &str) -> io::Result<()> {
        if matches!(value(answer, "RESULT"), Some("INVALID_ID" | "I2P_ERROR")) {
            *self.open.lock().await = None;
        }
        succeeded(answer)
    }
}

/// Takes links in, for as long as the reactor runs.
pub(crate) async fn run<M, C>(driver: Rc<Driver<M, C>>, session: Rc<Session>)
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut pause = MIN_PAUSE;
    loop {
        match session.accept().await {
            Ok((stream, from)) => {
                pause = MIN_PAUSE;
                if let Ok(addr) = M::Addr::try_from(from)
                    && !driver.inbound_full()
                {
                    driver.open(stream, addr, Direction::Inbound, None);
                }
            }
            Err(error) => {
                if pause == MIN_PAUSE {
                    tracing::warn!("cannot listen on I2P at {}: {error}; trying again", session.config.addr);
                }
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

async fn ask(stream: &mut TcpStream, question: &str) -> io::Result<String> {
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the SAM bridge does not answer");
    timeout(ANSWER, read_line(stream)).await.map_err(|_| late())?
}

/// Reads up to the end of the line and nothing beyond it: what follows belongs to the link.
async fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            _ if line.len() == MAX_LINE => return Err(io::Error::other("the SAM bridge's answer is too long")),
            byte => line.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// The value of a key in an answer.
fn value<'a>(answer: &'a str, key: &str) -> Option<&'a str> {
    let pairs = answer.split(' ').filter_map(|word| word.split_once('='));
    pairs.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value)
}

fn succeeded(answer: &str) -> io::Result<()> {
    match value(answer, "RESULT") {
        Some("OK") => Ok(()),
        _ => Err(failed(answer)),
    }
}

fn failed(answer: &str) -> io::Error {
    io::Error::other(format!(
        "the SAM bridge says: {}",
        answer.escape_debug().take(200).collect::<String>()
    ))
}

/// Whether the other side has not closed it. It says nothing on its own accord.
fn is_alive(stream: &TcpStream) -> bool {
    let error = stream.try_read(&mut [0]).err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// The public part of a private key: 384 bytes, then a certificate that tells its length in its second and third byte.
fn destination(key: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes([*key.get(385)?, *key.get(386)?]);
    key.get(..387 + usize::from(length))
}

fn name(destination: impl AsRef<[u8]>) -> NetAddr {
    NetAddr {
        host: Host::I2p(Sha256::digest(destination).into()),
        port: 0,
    }
}

/// Base64 as I2P writes it.
fn alphabet() -> GeneralPurpose {
    const SIGNS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~";
    // The signs are 64 different ones.
    let signs = Alphabet::new(SIGNS).unwrap_or(base64::alphabet::STANDARD);
    GeneralPurpose::new(&signs, GeneralPurposeConfig::new())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    alphabet().decode(text).ok().filter(|bytes| bytes.len() >= 387)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_by_key() {
        let answer = "NAMING REPLY RESULT=OK NAME=x.b32.i2p VALUE=ab-~cd==";
        assert_eq!(value(answer, "VALUE"), Some("ab-~cd=="));
        assert_eq!(value(answer, "PRIV"), None);
        assert!(succeeded(answer).is_ok());
        assert!(succeeded("STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\"no\"").is_err());
        assert!(succeeded("").is_err());
    }

    #[test]
    fn a_destination_is_what_its_certificate_says() {
        let mut key = vec![7; 600];
        key[385..387].copy_from_slice(&[0, 4]);
        assert_eq!(destination(&key).map(<[u8]>::len), Some(391));
        key[385..387].copy_from_slice(&[9, 9]);
        assert_eq!(destination(&key), None);
        assert_eq!(destination(&[1; 100]), None);
        let text = alphabet().encode(&key);
        assert_eq!(decode(&text).as_deref(), Some(&key[..]));
    }
}
