//! Both roles against each other, byte by byte and all at once, and against noise.

use bytes::BytesMut;
use dunlin_peer::{Codec as _, SendBuf};

use super::*;
use crate::PeerId;
use crate::wire::{Codec, Handshake, Message, Reserved};

const TORRENT: InfoHash = InfoHash([7; 20]);

fn keys() -> TorrentKeys {
    let keys = TorrentKeys::default();
    keys.insert(InfoHash([1; 20]));
    keys.insert(TORRENT);
    keys
}

fn setup(encryption: Encryption, seed: u8) -> Setup {
    Setup {
        encryption,
        keys: keys(),
        seed: [seed; 32],
    }
}

fn codec(encryption: Encryption, seed: u8) -> Codec {
    Codec::encrypting(encryption, keys(), [seed; 32])
}

fn shake() -> Message {
    Message::Handshake(Handshake {
        reserved: Reserved::OURS,
        info_hash: TORRENT,
        peer_id: PeerId([9; 20]),
    })
}

fn block(byte: u8) -> Message {
    Message::Piece {
        piece: 1,
        begin: 2,
        data: vec![byte; 16 << 10].into(),
    }
}

/// One side of a link.
struct Side {
    codec: Codec,
    input: BytesMut,
    out: SendBuf,
    heard: Vec<Message>,
}

impl Side {
    fn new(codec: Codec) -> Self {
        Self {
            codec,
            input: BytesMut::new(),
            out: SendBuf::default(),
            heard: Vec::new(),
        }
    }

    fn say(&mut self, msg: &Message) {
        self.codec.encode(msg, &mut self.out);
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), dunlin_peer::CodecError> {
        self.input.extend_from_slice(bytes);
        loop {
            let decoded = self.codec.decode(&mut self.input)?;
            self.codec.respond(&mut self.out);
            match decoded {
                Some(msg) => self.heard.push(msg),
                None => return Ok(()),
            }
        }
    }

    fn said(&mut self) -> Vec<u8> {
        let bytes = self.out.to_vec();
        self.out.consume(bytes.len());
        bytes
    }
}

/// Carries bytes to and fro in cuts of `cut` until both are silent; all bytes of each direction.
fn talk(sides: &mut [Side; 2], cut: usize) -> Result<[Vec<u8>; 2], dunlin_peer::CodecError> {
    let mut wire = [Vec::new(), Vec::new()];
    loop {
        let mut silent = true;
        for from in [0, 1] {
            let bytes = sides[from].said();
            silent &= bytes.is_empty();
            wire[from].extend_from_slice(&bytes);
            for cut in bytes.chunks(cut) {
                sides[1 - from].hear(cut)?;
            }
        }
        if silent {
            return Ok(wire);
        }
    }
}

/// A whole conversation between `dialler` and `listener`; all bytes of each direction.
fn converse(dialler: Codec, listener: Codec, cut: usize) -> Result<[Vec<u8>; 2], dunlin_peer::CodecError> {
    let mut sides = [Side::new(dialler), Side::new(listener)];
    sides[0].say(&Message::Encrypt(TORRENT));
    sides[0].say(&shake());
    let mut wire = talk(&mut sides, cut)?;
    assert_eq!(sides[1].heard, [shake()]);
    sides[1].say(&shake());
    sides[1].say(&block(1));
    sides[0].say(&block(2));
    sides[0].say(&Message::Have(3));
    for (all, more) in wire.iter_mut().zip(talk(&mut sides, cut)?) {
        all.extend(more);
    }
    assert_eq!(sides[0].heard, [shake(), block(1)]);
    assert_eq!(sides[1].heard, [shake(), block(2), Message::Have(3)]);
    Ok(wire)
}

fn shows(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[test]
fn both_roles_agree_in_cuts_of_any_size() {
    use Encryption::{Prefer, Require};
    for (dialler, listener) in [
        (Prefer, Prefer),
        (Prefer, Require),
        (Require, Prefer),
        (Require, Require),
    ] {
        for cut in [1, 7, 96, 1000, usize::MAX] {
            let wire = converse(codec(dialler, 1), codec(listener, 2), cut).unwrap();
            for bytes in wire {
                assert!(!shows(&bytes, b"BitTorrent") || (dialler, listener) == (Prefer, Prefer));
                // What both prefer is not to spend time on a cipher for content.
                assert_eq!(
                    shows(&bytes, &[0, 0, 0x40, 9, 7]),
                    (dialler, listener) == (Prefer, Prefer)
                );
            }
        }
    }
}

#[test]
fn the_dialler_shows_nothing_of_its_handshake() {
    let [dialled, _] = converse(codec(Encryption::Prefer, 1), codec(Encryption::Prefer, 2), usize::MAX).unwrap();
    assert!(!shows(&dialled, b"BitTorrent") && !shows(&dialled, &TORRENT.0));
}

#[test]
fn every_length_of_padding_is_understood() {
    let lengths = [0, 1, 2, 7, 8, 19, 20, 21, 255, 256, 511, 512];
    for first in lengths {
        for second in lengths {
            let mut dialler = Greeting::with_pads(setup(Encryption::Require, 1), Some(TORRENT), [first, second]);
            let mut listener = Greeting::with_pads(setup(Encryption::Prefer, 2), None, [second, first]);
            dialler.held = b"initial".to_vec();
            let (mut to_listener, mut to_dialler) = (BytesMut::new(), BytesMut::new());
            let (mut from_dialler, mut from_listener) = (None, None);
            while from_dialler.is_none() {
                to_listener.extend(std::mem::take(&mut dialler.output));
                if from_listener.is_none() {
                    from_listener = listener.receive(&mut to_listener).unwrap();
                }
                to_dialler.extend(std::mem::take(&mut listener.output));
                from_dialler = dialler.receive(&mut to_dialler).unwrap();
            }
            from_listener.unwrap().decrypt(&mut to_listener);
            assert_eq!(&to_listener[..], b"initial");
            assert!(to_dialler.is_empty());
        }
    }
}

#[test]
fn too_much_padding_is_refused_in_bounded_memory() {
    for pads in [[513, 0], [0, 513]] {
        let mut dialler = Greeting::with_pads(setup(Encryption::Prefer, 1), Some(TORRENT), pads);
        let mut listener = Greeting::with_pads(setup(Encryption::Prefer, 2), None, [0, 0]);
        let mut input = BytesMut::from(&dialler.output[..]);
        dialler.output.clear();
        let first = listener.receive(&mut input);
        let mut answer = BytesMut::from(&listener.output[..]);
        assert!(dialler.receive(&mut answer).unwrap().is_none());
        input.extend(std::mem::take(&mut dialler.output));
        assert!(first.and_then(|_| listener.receive(&mut input)).is_err());
    }
    // Noise in both roles.
    let mut noise = vec![0; 4096];
    let mut state = 1u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let listener = Side::new(codec(Encryption::Prefer, 2));
    let mut dialler = Side::new(codec(Encryption::Prefer, 1));
    dialler.say(&Message::Encrypt(TORRENT));
    for mut side in [listener, dialler] {
        let refused_at = noise.iter().position(|byte| side.hear(&[*byte]).is_err()).unwrap();
        assert!(refused_at < 96 + 512 + 20, "{refused_at}");
        assert!(side.heard.is_empty());
    }
}

#[test]
fn who_requires_encryption_takes_nothing_else_and_who_wants_none_refuses_it() {
    // A plain handshake.
    let mut plain = Side::new(codec(Encryption::Prefer, 1));
    plain.say(&shake());
    let bytes = plain.said();
    assert!(Side::new(codec(Encryption::Require, 2)).hear(&bytes).is_err());
    let mut prefers = Side::new(codec(Encryption::Prefer, 2));
    prefers.hear(&bytes).unwrap();
    assert_eq!(prefers.heard, [shake()]);
    prefers.say(&shake());
    assert_eq!(prefers.said(), bytes, "the answer is plain too");
    // An encrypted one.
    assert!(converse(codec(Encryption::Prefer, 1), codec(Encryption::Off, 2), usize::MAX).is_err());
}

#[test]
fn a_torrent_that_we_do_not_have_and_one_removed_are_refused() {
    let known = keys();
    known.remove(TORRENT);
    let listener = Codec::encrypting(Encryption::Prefer, known, [2; 32]);
    let error = converse(codec(Encryption::Prefer, 1), listener, usize::MAX).unwrap_err();
    assert!(error.to_string().contains("unknown torrent"), "{error}");
}

#[test]
fn a_listener_may_choose_only_what_was_offered() {
    // The listener believes that it may speak in plain, the dialler insists on RC4: its choice must be RC4, and a
    // choice of nothing or of both is refused.
    for chosen in [0, 1, 3, 4] {
        let mut dialler = Greeting::with_pads(setup(Encryption::Require, 1), Some(TORRENT), [0, 0]);
        let mut listener = Greeting::with_pads(setup(Encryption::Prefer, 2), None, [0, 0]);
        let mut input = BytesMut::from(&dialler.output[..]);
        assert!(listener.receive(&mut input).unwrap().is_none());
        let mut answer = BytesMut::from(&listener.output[..]);
        assert!(dialler.receive(&mut answer).unwrap().is_none());
        dialler.output.drain(..96);
        listener.output.clear();
        input.extend(std::mem::take(&mut dialler.output));
        assert!(listener.receive(&mut input).unwrap().is_some());
        // A stream cipher: turning bits of its bytes turns those of the choice.
        let mut answer = BytesMut::from(&listener.output[..]);
        answer[11] ^= 2 ^ chosen;
        assert!(dialler.receive(&mut answer).is_err(), "{chosen}");
    }
}
