//! An onion service through Tor's control port (Tor's control-spec): authentication, `ADD_ONION`, and the key kept, so
//! that the address stays.
//!
//! The service lasts as long as the control connection; when Tor is started anew it is set up again.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use dunlin_peer::{Host, NetAddr};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::NetError;

/// How long Tor may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest answer that is read.
const MAX_ANSWER: u64 = 1 << 20;
/// The pause after a failure, doubled up to the second.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(10 * 60);
/// How soon the end of the program is noticed.
const GLANCE: Duration = Duration::from_millis(500);
/// A cookie has this many bytes; a file of another length is none.
const COOKIE: usize = 32;

/// Which onion service to set up, and where.
#[derive(Clone)]
pub struct TorConfig {
    /// Tor's control port.
    pub control: SocketAddr,
    /// The password of the control port; without one, its cookie file is read.
    pub password: Option<String>,
    /// The file of the service's private key; made when there is none.
    pub key: PathBuf,
    /// The service's port.
    pub port: u16,
    /// Where its links come out.
    pub target: SocketAddr,
    /// Is told the service's address whenever it is set up.
    pub found: Sender<NetAddr>,
}

impl fmt::Debug for TorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TorConfig")
            .field("control", &self.control)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Keeps the onion service up until it is dropped.
#[derive(Debug)]
pub struct OnionService {
    stop: Arc<AtomicBool>,
}

impl Drop for OnionService {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Why there is no onion service now.
#[derive(Debug, thiserror::Error)]
enum TorError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("Tor answers `{0}`")]
    Refused(String),
    #[error("{0}")]
    Auth(String),
}

impl OnionService {
    /// Sets the service up on a thread of its own, and again whenever Tor comes back.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(config: TorConfig) -> Result<Self, NetError> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        thread::Builder::new()
            .name("tor-control".to_owned())
            .spawn(move || keep(&config, &seen))
            .map_err(NetError::Start)?;
        Ok(Self { stop })
    }
}

fn keep(config: &TorConfig, stop: &AtomicBool) {
    let mut pause = MIN_PAUSE;
    while !stop.load(Ordering::Relaxed) {
        let ended = Control::connect(config).and_then(|mut control| {
            let name = control.set_up(config)?;
            pause = MIN_PAUSE;
            tracing::info!("our onion service is {name}");
            // Whoever wants to hear of it is gone only when the process stops.
            let _ = config.found.send(name);
            control.wait(stop)
        });
        match ended {
            Ok(()) => tracing::info!("Tor's control connection ended; the onion service is gone until it is back"),
            Err(error) => {
                let report = format!("no onion service through Tor at {}: {error}", config.control);
                match pause == MIN_PAUSE {
                    true => tracing::warn!("{report}; trying again"),
                    false => tracing::debug!("{report}"),
                }
            }
        }
        let until = Instant::now() + pause;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            thread::sleep(GLANCE);
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

struct Control {
    stream: BufReader<TcpStream>,
}

impl Control {
    fn connect(config: &TorConfig) -> Result<Self, TorError> {
        let stream = TcpStream::connect_timeout(&config.control, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Asks one question; the lines of the answer without their codes.
    fn ask(&mut self, question: &str) -> Result<Vec<String>, TorError> {
        self.stream.get_mut().write_all(format!("{question}\r\n").as_bytes())?;
        let mut lines = Vec::new();
        let mut answer = Read::by_ref(&mut self.stream).take(MAX_ANSWER);
        loop {
            let mut line = String::new();
            if answer.read_line(&mut line)? == 0 || !line.ends_with('\n') {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let line = line.trim_end();
            let (Some(code), Some(text)) = (line.get(..3), line.get(4..)) else {
                return Err(TorError::Refused(shown(line)));
            };
            if code == "650" {
                // News that nobody asked for.
                continue;
            }
            if code != "250" {
                return Err(TorError::Refused(shown(line)));
            }
            lines.push(text.to_owned());
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(lines);
            }
        }
    }

    /// Authenticates and adds the service; its address.
    fn set_up(&mut self, config: &TorConfig) -> Result<NetAddr, TorError> {
        self.authenticate(config.password.as_deref())?;
        let key = match std::fs::read_to_string(&config.key) {
            Ok(key) => key.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "NEW:ED25519-V3".to_owned(),
            Err(error) => return Err(error.into()),
        };
        if !key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":+/=-".contains(&byte))
        {
            let text = format!("{} holds no key of an onion service", config.key.display());
            return Err(TorError::Auth(text));
        }
        let lines = self.ask(&format!("ADD_ONION {key} Port={},{}", config.port, config.target))?;
        let find = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        if let Some(key) = find("PrivateKey") {
            crate::files::write_secret(&config.key, key.as_bytes())?;
        }
        let host = find("ServiceID").and_then(|id| format!("{id}.onion").parse::<Host>().ok());
        let host = host.ok_or_else(|| TorError::Refused(shown(&lines.join(" "))))?;
        Ok(NetAddr {
            host,
            port: config.port,
        })
    }

    fn authenticate(&mut self, password: Option<&str>) -> Result<(), TorError> {
        let lines = self.ask("PROTOCOLINFO 1")?;
        let auth = lines.iter().find_map(|line| line.strip_prefix("AUTH "));
        let pairs = auth.map(pairs).unwrap_or_default();
        let find = |name: &str| {
            pairs
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let methods: Vec<&str> = find("METHODS").unwrap_or_default().split(',').collect();
        if let Some(password) = password {
            if !methods.contains(&"HASHEDPASSWORD") {
                return Err(TorError::Auth("Tor's control port takes no password".to_owned()));
            }
            let quoted = password.replace('\\', "\\\\").replace('"', "\\\"");
            return self.ask(&format!("AUTHENTICATE \"{quoted}\"")).map(drop);
        }
        if methods.contains(&"NULL") {
            return self.ask("AUTHENTICATE").map(drop);
        }
        match find("COOKIEFILE") {
            Some(file) if methods.contains(&"SAFECOOKIE") => self.show_cookie(Path::new(file)),
            _ => Err(TorError::Auth(
                "Tor's control port asks for a password: give it with --tor-password".to_owned(),
            )),
        }
    }

    /// Proves that we can read the cookie without telling it to whoever listens there.
    fn show_cookie(&mut self, file: &Path) -> Result<(), TorError> {
        let wrong = |what: &str| TorError::Auth(format!("Tor's cookie {}: {what}", file.display()));
        let cookie = std::fs::read(file).map_err(|error| wrong(&error.to_string()))?;
        if cookie.len() != COOKIE {
            return Err(wrong("is not 32 bytes long"));
        }
        let nonce: [u8; 32] = rand::random();
        let lines = self.ask(&format!("AUTHCHALLENGE SAFECOOKIE {}", hex::encode(nonce)))?;
        let pairs = lines
            .iter()
            .find_map(|line| line.strip_prefix("AUTHCHALLENGE "))
            .map(pairs)
            .unwrap_or_default();
        let find = |name: &str| {
            let found = pairs.iter().find(|(key, _)| key == name);
            found.and_then(|(_, value)| <[u8; 32]>::try_from(hex::decode(value).ok()?).ok())
        };
        let (Some(theirs), Some(proof)) = (find("SERVERNONCE"), find("SERVERHASH")) else {
            return Err(wrong("Tor's challenge cannot be read"));
        };
        let said = [&cookie[..], &nonce, &theirs].concat();
        // The names of the two directions are those of the specification.
        let verified = mac(b"Tor safe cookie authentication server-to-controller hash", &said)
            .is_some_and(|mac| mac.verify_slice(&proof).is_ok());
        let ours = mac(b"Tor safe cookie authentication controller-to-server hash", &said);
        match ours {
            Some(ours) if verified => {
                let answer = hex::encode(ours.finalize().into_bytes());
                self.ask(&format!("AUTHENTICATE {answer}")).map(drop)
            }
            _ => Err(wrong("who answers does not know it")),
        }
    }

    /// Waits for the end of the connection or of the program.
    fn wait(&mut self, stop: &AtomicBool) -> Result<(), TorError> {
        self.stream.get_ref().set_read_timeout(Some(GLANCE))?;
        let mut dropped = [0; 4096];
        while !stop.load(Ordering::Relaxed) {
            match self.stream.read(&mut dropped) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn mac(key: &[u8], said: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(said);
    Some(mac)
}

/// A line of an answer, fit for a log.
fn shown(line: &str) -> String {
    line.escape_debug().take(200).collect()
}

/// `KEY=value OTHER="a \"quoted\" value"`.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut signs = text.chars().peekable();
    while signs.peek().is_some() {
        let key: String = signs.by_ref().take_while(|sign| *sign != '=' && *sign != ' ').collect();
        let mut value = String::new();
        if signs.next_if_eq(&'"').is_some() {
            while let Some(sign) = signs.next().filter(|sign| *sign != '"') {
                // A backslash takes the next sign as it is.
                value.extend(if sign == '\\' { signs.next() } else { Some(sign) });
            }
            signs.next_if_eq(&' ');
        } else if !key.is_empty() {
            value = signs.by_ref().take_while(|sign| *sign != ' ').collect();
        }
        pairs.push((key, value));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_pairs() {
        let read = pairs(r#"METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/home/x y/\"c\"\\k" SERVERHASH=ab"#);
        let expected = [
            ("METHODS", "COOKIE,SAFECOOKIE"),
            ("COOKIEFILE", r#"/home/x y/"c"\k"#),
            ("SERVERHASH", "ab"),
        ];
        assert!(
            read.iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .eq(expected)
        );
        assert!(pairs("").is_empty());
        pairs("=\"\\");
    }
}
