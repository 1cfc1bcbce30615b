//! The encrypted transport (BIP 324): the key exchange, and messages in packets.
//!
//! The ciphers and the steps of the handshake are those of the `bip324` crate. Its steps borrow from one another, so
//! the handshake is written as one `async` function that waits for bytes; nothing but [`Greeting::receive`] drives it.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bip324::{
    CipherSession, FillBytes, GarbageResult, Handshake, Initialized, NUM_LENGTH_BYTES, OutboundCipher, PacketType,
    ReceivedKey, Role, VersionResult,
};
use bitcoin::secp256k1::Secp256k1;
use bytes::{Bytes, BytesMut};
use dunlin_peer::CodecError;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::message::Message;
use super::plain::{MAX_PAYLOAD, command_text};

/// Most random bytes that may follow a key.
const MAX_GARBAGE: usize = 4095;
/// Bytes of a key.
const KEY: usize = 64;
/// Bytes of a packet after its contents: the tag.
const TAG: usize = 16;
/// Bytes before the contents in what follows the length: the flags.
const FLAGS: usize = 1;
/// The flag of packets whose contents are to be ignored.
const DECOY: u8 = 0x80;
/// Bytes of a command that has no short id.
const COMMAND: usize = 12;
/// Most bytes of a packet's contents.
const MAX_CONTENTS: usize = 1 + COMMAND + MAX_PAYLOAD;

/// Commands with a short id: their place in the list, counted from 1.
const SHORT_IDS: [&str; 28] = [
    "addr",
    "block",
    "blocktxn",
    "cmpctblock",
    "feefilter",
    "filteradd",
    "filterclear",
    "filterload",
    "getblocks",
    "getblocktxn",
    "getdata",
    "getheaders",
    "headers",
    "inv",
    "mempool",
    "merkleblock",
    "notfound",
    "ping",
    "pong",
    "sendcmpct",
    "tx",
    "getcfilters",
    "cfilter",
    "getcfheaders",
    "cfheaders",
    "getcfcheckpt",
    "cfcheckpt",
    "addrv2",
];

fn wrong(error: bip324::Error) -> CodecError {
    CodecError::new(format!("encrypted transport: {error}"))
}

/// The length of what follows the length field, if a peer may send that much.
fn bounded(len: usize) -> Result<usize, CodecError> {
    if len > FLAGS + MAX_CONTENTS + TAG {
        return Err(CodecError::new(format!("a packet of {len} bytes is too large")));
    }
    Ok(len)
}

/// What the handshake has taken in and not used, and what it wants sent.
#[derive(Default)]
struct Pipe {
    input: BytesMut,
    output: Vec<Bytes>,
}

/// The handshake's end of the pipe.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Pipe>>);

impl Wire {
    fn send(&self, bytes: Vec<u8>) {
        self.0.borrow_mut().output.push(bytes.into());
    }

    /// Everything that has come, at least `count` bytes of it.
    async fn all(&self, count: usize) -> BytesMut {
        poll_fn(|_| {
            let input = &mut self.0.borrow_mut().input;
            if input.len() < count {
                return Poll::Pending;
            }
            Poll::Ready(input.split())
        })
        .await
    }

    /// The next `count` bytes.
    async fn take(&self, count: usize) -> BytesMut {
        let mut all = self.all(count).await;
        let rest = all.split_off(count);
        self.give_back(rest);
        all
    }

    /// What was taken and is not used comes next again.
    fn give_back(&self, mut rest: BytesMut) {
        let input = &mut self.0.borrow_mut().input;
        rest.unsplit(input.split());
        *input = rest;
    }
}

/// The first 32 bytes that the generator gives are the key.
struct Keys(ChaCha20Rng);

impl FillBytes for Keys {
    fn fill_bytes(&mut self, dest: &mut [u8; 32]) {
        RngCore::fill_bytes(&mut self.0, dest);
    }
}

async fn greet(magic: [u8; 4], role: Role, seed: [u8; 32], wire: Wire) -> Result<CipherSession, CodecError> {
    let mut rng = Keys(ChaCha20Rng::from_seed(seed));
    let curve = Secp256k1::signing_only();
    let handshake = Handshake::new_with_rng(magic, role, &mut rng, &curve).map_err(wrong)?;
    let mut garbage = vec![0; rng.0.random_range(0..=MAX_GARBAGE)];
    RngCore::fill_bytes(&mut rng.0, &mut garbage);
    let mut out = vec![0; Handshake::<Initialized>::send_key_len(Some(&garbage))];
    let handshake = handshake.send_key(Some(&garbage), &mut out).map_err(wrong)?;
    wire.send(out);

    let key = wire.take(KEY).await;
    let mut theirs = [0; KEY];
    theirs.copy_from_slice(&key);
    let handshake = handshake.receive_key(theirs).map_err(wrong)?;
    let mut out = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(None)];
    let mut handshake = handshake.send_version(&mut out, None).map_err(wrong)?;
    wire.send(out);

    // Their garbage ends with a terminator that only they and we know.
    let mut received = BytesMut::new();
    let (mut handshake, used) = loop {
        match handshake.receive_garbage(&received).map_err(wrong)? {
            GarbageResult::FoundGarbage {
                handshake,
                consumed_bytes,
            } => break (handshake, consumed_bytes),
            GarbageResult::NeedMoreData(same) => {
                handshake = same;
                received.extend_from_slice(&wire.all(1).await);
            }
        }
    };
    wire.give_back(BytesMut::from(&received[used..]));

    // Any number of decoys may come before their version packet, whose contents mean nothing yet.
    loop {
        let head = wire.take(NUM_LENGTH_BYTES).await;
        let len = handshake
            .decrypt_packet_len([head[0], head[1], head[2]])
            .map_err(wrong)?;
        let mut packet = wire.take(bounded(len)?).await;
        match handshake.receive_version(&mut packet).map_err(wrong)? {
            VersionResult::Complete { cipher } => return Ok(cipher),
            VersionResult::Decoy(same) => handshake = same,
        }
    }
}

/// A handshake under way.
pub(super) struct Greeting {
    wire: Wire,
    steps: Pin<Box<dyn Future<Output = Result<CipherSession, CodecError>>>>,
}

impl Greeting {
    /// We dialled: our key goes out at once.
    pub(super) fn initiate(magic: [u8; 4], seed: [u8; 32]) -> Self {
        let mut this = Self::new(magic, Role::Initiator, seed);
        // It cannot be complete, and an error comes again at the next call.
        let _ = this.receive(&mut BytesMut::new());
        this
    }

    /// They dialled, and their first bytes are no v1 message.
    pub(super) fn respond(magic: [u8; 4], seed: [u8; 32]) -> Self {
        Self::new(magic, Role::Responder, seed)
    }

    fn new(magic: [u8; 4], role: Role, seed: [u8; 32]) -> Self {
        let wire = Wire::default();
        Self {
            steps: Box::pin(greet(magic, role, seed, wire.clone())),
            wire,
        }
    }

    /// Goes on with what came; all of `input` is taken until the session stands.
    pub(super) fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Session>, CodecError> {
        self.wire.0.borrow_mut().input.unsplit(input.split());
        match self.steps.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(None),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(cipher)) => {
                *input = self.wire.0.borrow_mut().input.split();
                Ok(Some(Session {
                    cipher,
                    incoming: None,
                    output: self.take_output(),
                }))
            }
        }
    }

    pub(super) fn take_output(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.wire.0.borrow_mut().output)
    }
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Greeting")
    }
}

/// The transport after the handshake.
pub(super) struct Session {
    cipher: CipherSession,
    /// The length of the packet that is coming, once it is known.
    incoming: Option<usize>,
    output: Vec<Bytes>,
}

impl Session {
    /// The same on both sides; whoever sits between has another one with each.
    pub(super) fn id(&self) -> [u8; 32] {
        *self.cipher.id()
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, CodecError> {
        loop {
            let len = match self.incoming {
                Some(len) => len,
                None => {
                    let Some(&head) = input.first_chunk::<NUM_LENGTH_BYTES>() else {
                        return Ok(None);
                    };
                    let _ = input.split_to(NUM_LENGTH_BYTES);
                    let len = bounded(self.cipher.inbound().decrypt_packet_len(head))?;
                    self.incoming = Some(len);
                    len
                }
            };
            if input.len() < len {
                return Ok(None);
            }
            self.incoming = None;
            let mut packet = input.split_to(len);
            self.cipher
                .inbound()
                .decrypt_in_place(&mut packet, None)
                .map_err(wrong)?;
            // The cipher refuses packets without flags and tag.
            if packet[0] & DECOY != 0 {
                continue;
            }
            if let Some(msg) = message(packet.freeze().slice(FLAGS..len - TAG)) {
                return Ok(Some(msg));
            }
        }
    }

    /// How many bytes the packet at the front of `input` still needs; 0 while its length is unknown.
    pub(super) fn missing(&self, input: &BytesMut) -> usize {
        self.incoming.map_or(0, |len| len.saturating_sub(input.len()))
    }

    pub(super) fn encode(&mut self, msg: &Message) {
        let (small, bulk) = msg.encode();
        let command = msg.command();
        let mut contents = Vec::with_capacity(1 + COMMAND + small.len() + bulk.len());
        match SHORT_IDS.iter().position(|known| *known == command) {
            // The list is shorter than a byte can count.
            Some(place) => contents.push(place as u8 + 1),
            None if command == FEATURE.1 => contents.push(FEATURE.0),
            None => {
                contents.push(0);
                contents.extend(command.bytes().chain(std::iter::repeat(0)).take(COMMAND));
            }
        }
        contents.extend_from_slice(&small);
        contents.extend_from_slice(&bulk);
        let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
        self.cipher
            .outbound()
            .encrypt(&contents, &mut packet, PacketType::Genuine, None)
            .expect("the packet has the length that the cipher asks for");
        self.output.push(packet.into());
    }

    pub(super) fn take_output(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.output)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("incoming", &self.incoming)
            .finish_non_exhaustive()
    }
}

/// The short id and the command of `feature` (BIP 434), which lies outside the list.
const FEATURE: (u8, &str) = (37, "feature");

/// The message of a packet; `None` when its command is none, which Core ignores too.
fn message(contents: Bytes) -> Option<Message> {
    let id = *contents.first()?;
    if id == 0 {
        let command = command_text(contents.get(1..=COMMAND)?)?;
        return Some(Message::decode(&command, contents.slice(1 + COMMAND..)));
    }
    let command = match SHORT_IDS.get(usize::from(id) - 1) {
        Some(command) => command,
        None if id == FEATURE.0 => FEATURE.1,
        None => return None,
    };
    Some(Message::decode(command, contents.slice(1..)))
}

#[cfg(test)]
#[path = "encrypted_tests.rs"]
mod tests;
