//! The transports of a link: the v1 envelope, or the encrypted one (BIP 324).
//!
//! Whoever dialled decides: a link whose first message is [`Message::Encrypt`] begins the encrypted handshake, any
//! other message begins the v1 transport. Whoever was dialled looks at the first bytes: the network's magic means v1,
//! anything else is taken for the peer's key. What is sent before the handshake is complete waits for it;
//! [`Message::Encrypted`] tells the receiver that it is.

use std::net::SocketAddr;

use bytes::BytesMut;
use dunlin_peer::{Codec as Framing, CodecError, SendBuf};

use super::encrypted::{Greeting, Session};
use super::message::Message;
use super::plain;

/// What a v1 peer of any network sends first stands behind the magic.
const VERSION_COMMAND: &[u8; 12] = b"version\0\0\0\0\0";

/// Frames messages of one network; one for each link.
#[derive(Debug)]
pub struct Codec {
    magic: [u8; 4],
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was sent or received yet; with the seed of the keys when the link may be encrypted.
    Fresh(Option<[u8; 32]>),
    Plain,
    /// Boxed: a link that only waits should cost little.
    Handshake(Box<Handshake>),
    Encrypted(Box<Session>),
}

#[derive(Debug)]
struct Handshake {
    greeting: Greeting,
    /// Messages that wait for the keys: no more than a machine says before it hears anything.
    held: Vec<Message>,
}

impl Codec {
    /// A codec for the network with this magic, see [`dunlin_chain::Params`], which speaks the v1 transport only.
    pub fn new(magic: [u8; 4]) -> Self {
        Self {
            magic,
            state: State::Fresh(None),
        }
    }

    /// A codec that speaks the encrypted transport too. Its keys come from `seed`, which must be secret, random and
    /// never used for another link.
    pub fn encrypting(magic: [u8; 4], seed: [u8; 32]) -> Self {
        Self {
            magic,
            state: State::Fresh(Some(seed)),
        }
    }

    /// The transport of a link on which the other side speaks first; `None` while its bytes do not tell.
    fn detect(&self, input: &BytesMut, seed: [u8; 32]) -> Result<Option<State>, CodecError> {
        let seen = input.len().min(4);
        if input[..seen] == self.magic[..seen] {
            return Ok((seen == 4).then_some(State::Plain));
        }
        match input.get(4..16) {
            None => Ok(None),
            Some(command) if command == VERSION_COMMAND => Err(CodecError::new("wrong network magic")),
            Some(_) => Ok(Some(State::Handshake(Box::new(Handshake {
                greeting: Greeting::respond(self.magic, seed),
                held: Vec::new(),
            })))),
        }
    }
}

impl Framing for Codec {
    type Msg = Message;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, CodecError> {
        if let State::Fresh(seed) = self.state {
            self.state = match seed {
                None => State::Plain,
                Some(seed) => match self.detect(input, seed)? {
                    Some(state) => state,
                    None => return Ok(None),
                },
            };
        }
        match &mut self.state {
            State::Fresh(_) => Ok(None),
            State::Plain => plain::decode(self.magic, input),
            State::Handshake(handshake) => {
                let Some(mut session) = handshake.greeting.receive(input)? else {
                    return Ok(None);
                };
                for msg in std::mem::take(&mut handshake.held) {
                    session.encode(&msg);
                }
                let id = session.id();
                self.state = State::Encrypted(Box::new(session));
                Ok(Some(Message::Encrypted(id)))
            }
            State::Encrypted(session) => session.decode(input),
        }
    }

    fn missing(&self, input: &BytesMut) -> usize {
        match &self.state {
            State::Plain => plain::missing(input),
            State::Encrypted(session) => session.missing(input),
            State::Fresh(_) | State::Handshake(_) => 0,
        }
    }

    fn encode(&mut self, msg: &Message, out: &mut SendBuf) {
        if let State::Fresh(seed) = self.state {
            self.state = match (msg, seed) {
                (Message::Encrypt, Some(seed)) => State::Handshake(Box::new(Handshake {
                    greeting: Greeting::initiate(self.magic, seed),
                    held: Vec::new(),
                })),
                _ => State::Plain,
            };
        }
        match (&mut self.state, msg) {
            (_, Message::Encrypt | Message::Encrypted(_)) | (State::Fresh(_), _) => {}
            (State::Plain, _) => plain::encode(self.magic, msg, out),
            (State::Handshake(handshake), _) => handshake.held.push(msg.clone()),
            (State::Encrypted(session), _) => session.encode(msg),
        }
        self.respond(out);
    }

    fn respond(&mut self, out: &mut SendBuf) {
        let bytes = match &mut self.state {
            State::Fresh(_) | State::Plain => return,
            State::Handshake(handshake) => handshake.greeting.take_output(),
            State::Encrypted(session) => session.take_output(),
        };
        bytes.into_iter().for_each(|bytes| out.put_bytes(bytes));
    }
}

/// The address that a `version` message names when the receiver's should not be told.
pub(crate) fn no_addr() -> SocketAddr {
    SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0)
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
