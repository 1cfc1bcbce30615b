#![allow(clippy::unwrap_used)]

use dunlin_peer::{Codec as Framing, SendBuf};

use super::*;
use crate::wire::Codec;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// Both ends of a link, and the bytes on their way from each.
struct Pair {
    codecs: [Codec; 2],
    ways: [Vec<u8>; 2],
    inputs: [BytesMut; 2],
    heard: [Vec<Message>; 2],
}

impl Pair {
    fn new(dialler: Codec, listener: Codec) -> Self {
        Self {
            codecs: [dialler, listener],
            ways: Default::default(),
            inputs: Default::default(),
            heard: Default::default(),
        }
    }

    fn say(&mut self, side: usize, msg: &Message) {
        let mut out = SendBuf::default();
        self.codecs[side].encode(msg, &mut out);
        self.ways[side].extend(out.to_vec());
    }

    /// Carries bytes in pieces of `piece` until nothing moves.
    fn run(&mut self, piece: usize) -> Result<(), CodecError> {
        while self.ways.iter().any(|way| !way.is_empty()) {
            for to in 0..2 {
                let way = &mut self.ways[1 - to];
                let part: Vec<u8> = way.drain(..piece.min(way.len())).collect();
                self.inputs[to].extend_from_slice(&part);
                loop {
                    let decoded = self.codecs[to].decode(&mut self.inputs[to])?;
                    let mut out = SendBuf::default();
                    self.codecs[to].respond(&mut out);
                    self.ways[to].extend(out.to_vec());
                    match decoded {
                        Some(msg) => self.heard[to].push(msg),
                        None => break,
                    }
                }
            }
        }
        Ok(())
    }
}

fn seed(n: u8) -> [u8; 32] {
    [n; 32]
}

fn encrypting(n: u8) -> Codec {
    Codec::encrypting(MAGIC, seed(n))
}

#[test]
fn both_sides_agree_on_keys_and_talk_whatever_the_pieces() {
    for (n, piece) in [(1, 1), (2, 7), (3, 100), (4, 1 << 20)] {
        let mut pair = Pair::new(encrypting(n), encrypting(n + 100));
        pair.say(0, &Message::Encrypt);
        pair.say(0, &Message::Ping(7));
        pair.run(piece).unwrap();
        let ids: Vec<_> = pair
            .heard
            .iter()
            .map(|heard| match heard[0] {
                Message::Encrypted(id) => id,
                ref other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ids[0], ids[1]);
        assert!(matches!(pair.heard[1][1..], [Message::Ping(7)]));
        // Far beyond the 224 packets after which the keys change; both forms of a command.
        for n in 0..500 {
            pair.say(1, &Message::Pong(n));
            pair.say(1, &Message::WtxidRelay);
            pair.say(0, &Message::RawBlock(vec![n as u8; 300].into()));
        }
        pair.run(piece * 50).unwrap();
        assert_eq!(pair.heard[0].len(), 1 + 1000);
        assert!(matches!(pair.heard[0][1000], Message::WtxidRelay));
        assert!(matches!(pair.heard[0][999], Message::Pong(499)));
        // They are no blocks, but their command came through.
        assert!(pair.heard[1][2..].iter().all(|msg| msg.command() == "block"));
        assert_eq!(pair.heard[1].len(), 2 + 500);
    }
}

#[test]
fn a_v1_dialler_is_understood_and_a_v1_listener_hangs_up() {
    let mut pair = Pair::new(Codec::new(MAGIC), encrypting(1));
    pair.say(0, &Message::Ping(1));
    pair.run(3).unwrap();
    pair.say(1, &Message::Pong(1));
    pair.run(3).unwrap();
    assert!(matches!(pair.heard[0][..], [Message::Pong(1)]));

    let mut pair = Pair::new(encrypting(1), Codec::new(MAGIC));
    pair.say(0, &Message::Encrypt);
    assert_eq!(pair.run(64).unwrap_err().to_string(), "wrong network magic");
    // Without the wish to encrypt the same codec speaks v1.
    let mut pair = Pair::new(encrypting(1), Codec::new(MAGIC));
    pair.say(0, &Message::Ping(2));
    pair.run(64).unwrap();
    assert!(matches!(pair.heard[1][..], [Message::Ping(2)]));
}

#[test]
fn a_v1_peer_of_another_network_is_told_apart() {
    let mut bytes = BytesMut::from(&[1, 2, 3, 4][..]);
    bytes.extend_from_slice(b"version\0\0\0\0\0");
    assert_eq!(
        encrypting(1).decode(&mut bytes).unwrap_err().to_string(),
        "wrong network magic"
    );
}

#[test]
fn decoys_are_skipped_and_a_changed_byte_ends_the_link() {
    let (mut ours, mut theirs) = sessions();
    let mut stream = BytesMut::new();
    for (kind, contents) in [
        (PacketType::Decoy, &[18, 9, 9][..]),
        (PacketType::Genuine, &[][..]),
        (PacketType::Genuine, &[200, 1][..]),
        (PacketType::Genuine, &[0, b'x'][..]),
        (PacketType::Genuine, &[19, 1, 0, 0, 0, 0, 0, 0, 0][..]),
    ] {
        stream.extend_from_slice(&packet(&mut theirs, contents, kind));
    }
    // Only the last one is a message; the others are a decoy, empty, and of unknown commands.
    assert!(matches!(ours.decode(&mut stream), Ok(Some(Message::Pong(1)))));
    assert!(matches!(ours.decode(&mut stream), Ok(None)));
    let mut packet = packet(&mut theirs, &[19, 1], PacketType::Genuine);
    *packet.last_mut().unwrap() ^= 1;
    ours.decode(&mut BytesMut::from(&packet[..])).unwrap_err();
}

#[test]
fn a_claimed_length_beyond_the_bound_is_refused_at_once() {
    let (mut ours, _) = sessions();
    // Whatever the cipher makes of these bytes, one in four lengths of three bytes is within the bound.
    let refused = (0..=255u8).any(|n| {
        let mut fresh = sessions().0;
        fresh.decode(&mut BytesMut::from(&[n, n, n][..])).is_err()
    });
    assert!(refused);
    assert!(matches!(ours.decode(&mut BytesMut::new()), Ok(None)));
}

#[test]
fn endless_garbage_is_refused() {
    let mut greeting = Greeting::respond(MAGIC, seed(1));
    let mut input = BytesMut::from(&[7; KEY + MAX_GARBAGE + 15][..]);
    assert!(greeting.receive(&mut input).unwrap().is_none());
    assert!(greeting.receive(&mut BytesMut::from(&[7][..])).is_err());
}

fn packet(session: &mut Session, contents: &[u8], kind: PacketType) -> Vec<u8> {
    let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
    session
        .cipher
        .outbound()
        .encrypt(contents, &mut packet, kind, None)
        .unwrap();
    packet
}

fn sessions() -> (Session, Session) {
    let mut one = Greeting::initiate(MAGIC, seed(1));
    let mut two = Greeting::respond(MAGIC, seed(2));
    let (mut first, mut second) = (None, None);
    while first.is_none() || second.is_none() {
        let mut forth: BytesMut = one.take_output().concat().as_slice().into();
        second = second.or_else(|| two.receive(&mut forth).unwrap());
        let mut back: BytesMut = match &mut second {
            Some(session) => session.take_output(),
            None => two.take_output(),
        }
        .concat()
        .as_slice()
        .into();
        first = first.or_else(|| one.receive(&mut back).unwrap());
        if let Some(session) = &mut first {
            let mut rest: BytesMut = session.take_output().concat().as_slice().into();
            second = second.or_else(|| two.receive(&mut rest).unwrap());
        }
    }
    (first.unwrap(), second.unwrap())
}
