//! The handshake of an encrypted link, for either side.
//!
//! What a side has of the other's message it parses from its beginning whenever more has come: the whole is less than
//! 1,300 bytes, and only the shared secret costs enough to be remembered.

use std::fmt;

use bytes::{Buf, BytesMut};
use dunlin_peer::CodecError;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::cipher::{Cipher, Streams};
use super::exchange::{KEY, Secret};
use super::{Encryption, Setup, TorrentKeys, hash};
use crate::InfoHash;

/// Most bytes of each padding.
const MAX_PAD: usize = 512;
/// The verification constant: so many zeros.
const VC: usize = 8;
/// A SHA-1.
const HASH: usize = 20;
/// Bits of `crypto_provide` and `crypto_select`.
const PLAIN: u32 = 1;
const RC4: u32 = 2;

/// A handshake under way.
pub(in crate::wire) struct Greeting {
    secret: Secret,
    encryption: Encryption,
    role: Role,
    /// What the dialler's next bytes are encrypted with, once it has said which torrent the link is about.
    outbound: Option<Cipher>,
    /// Once the other side's key is here.
    shared: Option<[u8; KEY]>,
    /// Lengths of our paddings, after the key and in the encrypted part.
    pads: [usize; 2],
    rng: ChaCha20Rng,
    /// What is to be sent.
    pub(in crate::wire) output: Vec<u8>,
    /// What waits, in plain, until we may send it.
    pub(in crate::wire) held: Vec<u8>,
}

enum Role {
    Dialler(InfoHash),
    Listener(TorrentKeys),
}

impl Greeting {
    /// We dialled for this torrent: our key goes out at once.
    pub(in crate::wire) fn initiate(setup: Setup, info_hash: InfoHash) -> Self {
        let mut this = Self::new(setup.seed, setup.encryption, Role::Dialler(info_hash));
        this.say_key();
        this
    }

    /// They dialled, and what they say is no plain handshake.
    pub(in crate::wire) fn respond(setup: Setup) -> Self {
        Self::new(setup.seed, setup.encryption, Role::Listener(setup.keys))
    }

    fn new(seed: [u8; 32], encryption: Encryption, role: Role) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        Self {
            secret: Secret::new(&mut rng),
            encryption,
            role,
            outbound: None,
            shared: None,
            pads: [0, 1].map(|_| rng.random_range(0..=MAX_PAD)),
            rng,
            output: Vec::new(),
            held: Vec::new(),
        }
    }

    /// The same with paddings of these lengths.
    #[cfg(test)]
    pub(super) fn with_pads(setup: Setup, dialled: Option<InfoHash>, pads: [usize; 2]) -> Self {
        let mut this = match dialled {
            Some(info_hash) => Self::new(setup.seed, setup.encryption, Role::Dialler(info_hash)),
            None => Self::respond(setup),
        };
        this.pads = pads;
        if dialled.is_some() {
            this.say_key();
        }
        this
    }

    /// Goes on with what came. `Some` when the handshake is over; what is left of `input` is the link's, encrypted.
    ///
    /// # Errors
    /// When the other side does not speak this protocol, or nothing that we want.
    pub(in crate::wire) fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Streams>, CodecError> {
        let shared = match self.shared {
            Some(shared) => shared,
            None => {
                let Some(theirs) = input.first_chunk() else {
                    return Ok(None);
                };
                let shared = self.secret.shared(theirs).ok_or_else(|| wrong("a useless key"))?;
                input.advance(KEY);
                self.shared = Some(shared);
                match self.role {
                    Role::Dialler(info_hash) => self.say_torrent(&shared, info_hash),
                    Role::Listener(_) => self.say_key(),
                }
                shared
            }
        };
        let offer = self.offer();
        match &self.role {
            Role::Dialler(info_hash) => {
                let Some(choice) = hear_choice(input, &shared, *info_hash)? else {
                    return Ok(None);
                };
                input.advance(choice.used);
                let outbound = self.outbound.take().filter(|_| choice.cipher & offer != 0);
                match (choice.cipher, outbound) {
                    (PLAIN, Some(_)) => Ok(Some(Streams::plain_after(choice.inbound, 0))),
                    (RC4, Some(outbound)) => Ok(Some(Streams::rc4(choice.inbound, outbound))),
                    _ => Err(wrong("a cipher that was not offered")),
                }
            }
            Role::Listener(keys) => {
                let Some(request) = hear_torrent(input, &shared, keys)? else {
                    return Ok(None);
                };
                input.advance(request.used);
                self.choose(&shared, request).map(Some)
            }
        }
    }

    /// The ciphers that we agree to.
    fn offer(&self) -> u32 {
        match self.encryption {
            Encryption::Require => RC4,
            Encryption::Prefer | Encryption::Off => PLAIN | RC4,
        }
    }

    fn say_key(&mut self) {
        self.output.extend_from_slice(&self.secret.public());
        let mut pad = vec![0; self.pads[0]];
        self.rng.fill_bytes(&mut pad);
        self.output.extend_from_slice(&pad);
    }

    /// The dialler's second message, with what waits as its initial payload.
    fn say_torrent(&mut self, shared: &[u8; KEY], info_hash: InfoHash) {
        self.output.extend_from_slice(&hash(&[b"req1", shared]));
        let (torrent, mask) = (hash(&[b"req2", &info_hash.0]), hash(&[b"req3", shared]));
        self.output
            .extend(torrent.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        let mut part = vec![0; VC];
        part.extend_from_slice(&self.offer().to_be_bytes());
        put_pad(&mut part, self.pads[1]);
        // Only a handshake waits here.
        let initial = u16::try_from(self.held.len()).unwrap_or_default();
        part.extend_from_slice(&initial.to_be_bytes());
        part.extend(self.held.drain(..usize::from(initial)));
        let mut cipher = Cipher::of_dialler(shared, info_hash);
        cipher.apply(&mut part);
        self.output.extend_from_slice(&part);
        self.outbound = Some(cipher);
    }

    /// The listener's answer: what the rest of the link is encrypted with.
    fn choose(&mut self, shared: &[u8; KEY], request: Request) -> Result<Streams, CodecError> {
        let chosen = match request.offered & self.offer() {
            both if both & PLAIN != 0 => PLAIN,
            RC4 => RC4,
            _ => return Err(wrong("no cipher that we agree to")),
        };
        let mut part = vec![0; VC];
        part.extend_from_slice(&chosen.to_be_bytes());
        put_pad(&mut part, self.pads[1]);
        let mut outbound = Cipher::of_listener(shared, request.info_hash);
        outbound.apply(&mut part);
        self.output.extend_from_slice(&part);
        Ok(match chosen {
            PLAIN => Streams::plain_after(request.inbound, request.initial),
            _ => Streams::rc4(request.inbound, outbound),
        })
    }
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Greeting")
    }
}

/// The dialler's second message.
struct Request {
    info_hash: InfoHash,
    offered: u32,
    /// Bytes of payload that follow it, encrypted in any case.
    initial: usize,
    inbound: Cipher,
    /// Its length and that of the padding before it.
    used: usize,
}

/// The listener's second message.
struct Choice {
    cipher: u32,
    inbound: Cipher,
    /// Its length and that of the padding before it.
    used: usize,
}

fn hear_torrent(input: &[u8], shared: &[u8; KEY], keys: &TorrentKeys) -> Result<Option<Request>, CodecError> {
    let Some(start) = find(input, &hash(&[b"req1", shared]))? else {
        return Ok(None);
    };
    let mut used = start + HASH;
    let Some(masked) = input.get(used..).and_then(<[u8]>::first_chunk::<HASH>) else {
        return Ok(None);
    };
    used += HASH;
    let mask = hash(&[b"req3", shared]);
    let digest = std::array::from_fn(|at| masked[at] ^ mask[at]);
    let info_hash = keys.find(&digest).ok_or_else(|| wrong("an unknown torrent"))?;
    let mut inbound = Cipher::of_dialler(shared, info_hash);
    let Some(offered) = hear_vc(input, &mut used, &mut inbound)? else {
        return Ok(None);
    };
    let Some(initial) = take::<2>(input, &mut used, &mut inbound) else {
        return Ok(None);
    };
    Ok(Some(Request {
        info_hash,
        offered,
        initial: usize::from(u16::from_be_bytes(initial)),
        inbound,
        used,
    }))
}

fn hear_choice(input: &[u8], shared: &[u8; KEY], info_hash: InfoHash) -> Result<Option<Choice>, CodecError> {
    let mut vc = [0; VC];
    Cipher::of_listener(shared, info_hash).apply(&mut vc);
    let Some(mut used) = find(input, &vc)? else {
        return Ok(None);
    };
    let mut inbound = Cipher::of_listener(shared, info_hash);
    let cipher = hear_vc(input, &mut used, &mut inbound)?;
    Ok(cipher.map(|cipher| Choice { cipher, inbound, used }))
}

/// Where `mark` stands, after at most [`MAX_PAD`] bytes.
fn find(input: &[u8], mark: &[u8]) -> Result<Option<usize>, CodecError> {
    let window = &input[..input.len().min(MAX_PAD + mark.len())];
    let found = window.windows(mark.len()).position(|bytes| bytes == mark);
    if found.is_none() && window.len() == MAX_PAD + mark.len() {
        return Err(wrong("no sign of the protocol"));
    }
    Ok(found)
}

/// The verification constant, the ciphers and the padding.
fn hear_vc(input: &[u8], used: &mut usize, cipher: &mut Cipher) -> Result<Option<u32>, CodecError> {
    let Some(vc) = take::<VC>(input, used, cipher) else {
        return Ok(None);
    };
    if vc != [0; VC] {
        return Err(wrong("the keys do not agree"));
    }
    let (Some(ciphers), Some(pad)) = (take(input, used, cipher), take(input, used, cipher)) else {
        return Ok(None);
    };
    let pad = usize::from(u16::from_be_bytes(pad));
    if pad > MAX_PAD {
        return Err(wrong("padding too long"));
    }
    let Some(bytes) = input.get(*used..*used + pad) else {
        return Ok(None);
    };
    cipher.apply(&mut bytes.to_vec());
    *used += pad;
    Ok(Some(u32::from_be_bytes(ciphers)))
}

fn take<const N: usize>(input: &[u8], used: &mut usize, cipher: &mut Cipher) -> Option<[u8; N]> {
    let mut bytes = *input.get(*used..)?.first_chunk::<N>()?;
    cipher.apply(&mut bytes);
    *used += N;
    Some(bytes)
}

fn put_pad(part: &mut Vec<u8>, len: usize) {
    // At most [`MAX_PAD`].
    part.extend_from_slice(&(len as u16).to_be_bytes());
    part.resize(part.len() + len, 0);
}

fn wrong(what: &str) -> CodecError {
    CodecError::new(format!("encrypted handshake: {what}"))
}
