//! The bytes of a link: in plain, or behind the encrypted handshake (MSE).
//!
//! Whoever dialled decides: a link whose first message is [`Message::Encrypt`] begins the encrypted handshake, any other
//! message begins in plain. Whoever was dialled looks at the first bytes: what is no plain handshake is taken for the
//! peer's key. What is sent before the keys stand waits for them.

use bytes::BytesMut;
use dunlin_peer::{CodecError, SendBuf};

use super::Message;
use super::framing::{Framing, PROTOCOL};
use super::mse::{Encryption, Greeting, Setup, Streams, TorrentKeys};

/// One link's codec.
#[derive(Debug, Default)]
pub struct Codec {
    framing: Framing,
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Plain,
    /// Nothing was sent or received yet.
    Fresh(Box<Setup>),
    /// Boxed: a link that only waits should cost little.
    Greeting(Box<Greeting>),
    Encrypted(Box<Streams>),
}

impl Codec {
    /// A codec for a fresh link, which speaks in plain only.
    pub fn new() -> Self {
        Self::default()
    }

    /// A codec for a fresh link, which may be encrypted when it is about one of the torrents in `keys`. Its secrets come
    /// from `seed`, which must be secret, random and never used for another link.
    pub fn encrypting(encryption: Encryption, keys: TorrentKeys, seed: [u8; 32]) -> Self {
        let stage = match encryption {
            Encryption::Off => Stage::Plain,
            Encryption::Prefer | Encryption::Require => Stage::Fresh(Box::new(Setup { encryption, keys, seed })),
        };
        Self {
            framing: Framing::default(),
            stage,
        }
    }

    /// Finds out how a link begins on which the other side speaks first; nothing changes while its bytes do not tell.
    fn detect(&mut self, input: &[u8]) -> Result<(), CodecError> {
        let Stage::Fresh(setup) = &self.stage else {
            return Ok(());
        };
        let seen = input.len().min(PROTOCOL.len());
        if input[..seen] != PROTOCOL[..seen] {
            self.stage = Stage::Greeting(Box::new(Greeting::respond(Setup::clone(setup))));
        } else if seen == PROTOCOL.len() {
            if setup.encryption == Encryption::Require {
                return Err(CodecError::new("a plain link, and encryption is required"));
            }
            self.stage = Stage::Plain;
        }
        Ok(())
    }
}

impl dunlin_peer::Codec for Codec {
    type Msg = Message;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, CodecError> {
        self.detect(input)?;
        if let Stage::Greeting(greeting) = &mut self.stage {
            let Some(mut streams) = greeting.receive(input)? else {
                return Ok(None);
            };
            streams.begin(std::mem::take(&mut greeting.output), std::mem::take(&mut greeting.held));
            self.stage = Stage::Encrypted(Box::new(streams));
        }
        match &mut self.stage {
            Stage::Plain => self.framing.decode(input),
            Stage::Fresh(_) | Stage::Greeting(_) => Ok(None),
            Stage::Encrypted(streams) => {
                streams.decrypt(input);
                let decoded = self.framing.decode(input);
                streams.left(input.len());
                decoded
            }
        }
    }

    fn encode(&mut self, msg: &Message, out: &mut SendBuf) {
        if let Stage::Fresh(setup) = &self.stage {
            self.stage = match msg {
                Message::Encrypt(info_hash) => {
                    Stage::Greeting(Box::new(Greeting::initiate(Setup::clone(setup), *info_hash)))
                }
                _ => Stage::Plain,
            };
        }
        match &mut self.stage {
            Stage::Plain | Stage::Fresh(_) => self.framing.encode(msg, out),
            Stage::Greeting(greeting) => {
                let mut plain = SendBuf::default();
                self.framing.encode(msg, &mut plain);
                greeting.held.extend(plain.to_vec());
            }
            Stage::Encrypted(streams) if streams.encrypts() => {
                let mut plain = SendBuf::default();
                self.framing.encode(msg, &mut plain);
                let mut bytes = plain.to_vec();
                streams.encrypt(&mut bytes);
                streams.flush(out);
                out.put_bytes(bytes.into());
            }
            Stage::Encrypted(streams) => {
                streams.flush(out);
                self.framing.encode(msg, out);
            }
        }
        dunlin_peer::Codec::respond(self, out);
    }

    fn respond(&mut self, out: &mut SendBuf) {
        match &mut self.stage {
            Stage::Plain | Stage::Fresh(_) => {}
            Stage::Greeting(greeting) => out.put_slice(&std::mem::take(&mut greeting.output)),
            Stage::Encrypted(streams) => streams.flush(out),
        }
    }
}
