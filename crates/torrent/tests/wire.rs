//! The peer wire's codec from outside: every message there and back, in any chopping, and hostile bytes.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use dunlin_peer::{Codec as _, SendBuf};
use dunlin_torrent::wire::{
    Block, Codec, ExtHandshake, ExtensionIds, Handshake, MAX_BLOCK_LEN, Message, Metadata, Pex, PexFlags, Reserved,
};
use dunlin_torrent::{InfoHash, PeerId};
use rand::{Rng, SeedableRng};

fn handshake() -> Message {
    Message::Handshake(Handshake {
        reserved: Reserved::OURS,
        info_hash: InfoHash([1; 20]),
        peer_id: PeerId::new(b"-DN0100-", [2; 12]),
    })
}

fn ext_handshake() -> Message {
    Message::ExtHandshake(ExtHandshake {
        ids: ExtensionIds::OURS,
        client: Some("Dunlin 0.1".into()),
        port: Some(6881),
        request_queue: Some(500),
        metadata_size: Some(31_235),
        your_ip: Some("127.0.0.1".parse().unwrap()),
        upload_only: true,
    })
}

fn all_messages() -> Vec<Message> {
    let block = Block {
        piece: 3,
        begin: 16_384,
        len: 16_384,
    };
    vec![
        handshake(),
        ext_handshake(),
        Message::KeepAlive,
        Message::Choke,
        Message::Unchoke,
        Message::Interested,
        Message::NotInterested,
        Message::Have(7),
        Message::Bitfield(Bytes::from_static(&[0xff, 0x80])),
        Message::Request(block),
        Message::Piece {
            piece: 3,
            begin: 16_384,
            data: Bytes::from(vec![9; 16_384]),
        },
        Message::Cancel(block),
        Message::Port(6881),
        Message::Suggest(1),
        Message::HaveAll,
        Message::HaveNone,
        Message::Reject(block),
        Message::AllowedFast(2),
        Message::Metadata(Metadata::Request { piece: 1 }),
        Message::Metadata(Metadata::Data {
            piece: 1,
            total_size: 20_000,
            data: Bytes::from(vec![b'e'; 3616]),
        }),
        Message::Metadata(Metadata::Reject { piece: 1 }),
        Message::Pex(Pex {
            added: vec![
                (
                    "10.0.0.1:1".parse().unwrap(),
                    PexFlags(PexFlags::SEED | PexFlags::REACHABLE),
                ),
                ("[2001:db8::1]:2".parse().unwrap(), PexFlags(PexFlags::UTP)),
            ],
            dropped: vec!["10.0.0.2:3".parse().unwrap(), "[2001:db8::2]:4".parse().unwrap()],
        }),
        Message::DontHave(5),
    ]
}

/// A codec that knows the other side's extension ids, as after its handshake.
fn introduced() -> Codec {
    let mut codec = Codec::new();
    let mut bytes = BytesMut::from(&encode(&mut Codec::new(), &[handshake(), ext_handshake()])[..]);
    while codec.decode(&mut bytes).unwrap().is_some() {}
    codec
}

fn encode(codec: &mut Codec, messages: &[Message]) -> Vec<u8> {
    let mut out = SendBuf::default();
    for message in messages {
        codec.encode(message, &mut out);
    }
    out.to_vec()
}

#[test]
fn every_message_survives_any_chopping() {
    let messages = all_messages();
    let bytes = encode(&mut introduced(), &messages);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
    for most in [1, 3, 50, 5000, 100_000] {
        let mut codec = Codec::new();
        let mut input = BytesMut::new();
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let now = rng.random_range(1..=most).min(rest.len());
            input.extend_from_slice(&rest[..now]);
            rest = &rest[now..];
            while let Some(message) = codec.decode(&mut input).unwrap() {
                got.push(message);
            }
        }
        assert_eq!(got, messages);
        assert!(input.is_empty());
    }
}

#[test]
fn the_bytes_are_those_of_the_bep() {
    let mut codec = introduced();
    let mut bytes = |message: Message| encode(&mut codec, &[message]);
    let mut want = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04".to_vec();
    want.extend([1; 20]);
    want.extend(b"-DN0100-");
    want.extend([2; 12]);
    assert_eq!(bytes(handshake()), want);
    assert_eq!(bytes(Message::KeepAlive), [0, 0, 0, 0]);
    assert_eq!(bytes(Message::Unchoke), [0, 0, 0, 1, 1]);
    assert_eq!(bytes(Message::Have(0x0102)), [0, 0, 0, 5, 4, 0, 0, 1, 2]);
    let block = Block {
        piece: 1,
        begin: 0x4000,
        len: 0x4000,
    };
    assert_eq!(
        bytes(Message::Request(block)),
        [0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0, 0x40, 0]
    );
    let piece = Message::Piece {
        piece: 1,
        begin: 2,
        data: Bytes::from_static(b"xy"),
    };
    assert_eq!(bytes(piece), [0, 0, 0, 11, 7, 0, 0, 0, 1, 0, 0, 0, 2, b'x', b'y']);
    let request = Message::Metadata(Metadata::Request { piece: 0 });
    assert_eq!(bytes(request), b"\0\0\0\x1b\x14\x02d8:msg_typei0e5:piecei0ee");
}

#[test]
fn a_block_is_split_off_without_a_copy() {
    let mut codec = introduced();
    let message = Message::Piece {
        piece: 0,
        begin: 0,
        data: Bytes::from(vec![5; 16_384]),
    };
    let mut input = BytesMut::from(&encode(&mut introduced(), &[message])[..]);
    let place = input[13..].as_ptr();
    let Some(Message::Piece { data, .. }) = codec.decode(&mut input).unwrap() else {
        panic!()
    };
    assert_eq!(data.as_ptr(), place);
    assert_eq!(data.len(), 16_384);
}

#[test]
fn extension_messages_go_out_under_the_peers_ids_or_not_at_all() {
    let pex = Message::Pex(Pex::default());
    assert!(encode(&mut Codec::new(), &[pex.clone(), Message::DontHave(1)]).is_empty());
    let ids = ExtensionIds {
        ut_pex: Some(99),
        ..ExtensionIds::default()
    };
    let theirs = Message::ExtHandshake(ExtHandshake {
        ids,
        ..ExtHandshake::default()
    });
    let mut codec = Codec::new();
    let mut input = BytesMut::from(&encode(&mut Codec::new(), &[handshake(), theirs])[..]);
    while codec.decode(&mut input).unwrap().is_some() {}
    let bytes = encode(&mut codec, &[pex]);
    assert_eq!(bytes[4..6], [20, 99]);
    assert!(encode(&mut codec, &[Message::DontHave(1)]).is_empty());
}

#[test]
fn impossible_lengths_close_the_link_before_they_are_believed() {
    let refuse = |bytes: &[u8]| {
        let mut codec = introduced();
        let mut input = BytesMut::from(bytes);
        codec.decode(&mut input).unwrap_err();
    };
    let max = MAX_BLOCK_LEN + 9;
    let over = (max + 1).to_be_bytes();
    refuse(&[over[0], over[1], over[2], over[3], 7]); // a block too long
    refuse(&[0, 0, 0, 8, 7]); // a block without its header
    refuse(&[0, 0, 0, 2, 0]); // a choke with content
    refuse(&[0, 0, 0, 4, 4]); // half a have
    refuse(&[0xff, 0xff, 0xff, 0xff, 5]); // an endless bitfield
    refuse(&[0xff, 0xff, 0xff, 0xff, 20]); // an endless extension
    refuse(&[0xff, 0xff, 0xff, 0xff, 200]); // an endless unknown
    refuse(&[0, 0, 0, 1, 20]); // an extension without its id
    let request = |len: u32| {
        let mut bytes = vec![0, 0, 0, 13, 6, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(len.to_be_bytes());
        bytes
    };
    refuse(&request(0));
    refuse(&request(MAX_BLOCK_LEN + 1));
    let mut codec = introduced();
    assert!(
        codec
            .decode(&mut BytesMut::from(&request(MAX_BLOCK_LEN)[..]))
            .unwrap()
            .is_some()
    );
    let mut garbage = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
    Codec::new().decode(&mut garbage).unwrap_err();
}

#[test]
fn unknown_messages_are_skipped() {
    let mut codec = introduced();
    let mut bytes = vec![0, 0, 0, 100, 77];
    bytes.extend([0xee; 99]);
    bytes.extend([0, 0, 0, 3, 20, 55, 1]);
    bytes.extend([0, 0, 0, 1, 1]);
    let mut input = BytesMut::new();
    let mut got = Vec::new();
    for byte in bytes {
        input.extend_from_slice(&[byte]);
        got.extend(codec.decode(&mut input).unwrap());
    }
    assert_eq!(
        got,
        [
            Message::Unknown { id: 77 },
            Message::Unknown { id: 20 },
            Message::Unchoke
        ]
    );
}

#[test]
fn what_other_clients_send_is_understood() {
    // The handshakes of libtorrent and Transmission carry more than we know of; names and types vary.
    let body = b"d12:complete_agoi1e1:md11:lt_donthavei7e10:share_modei8e11:upload_onlyi3e12:ut_holepunchi4e11:ut_metadata\
        i2e6:ut_pexi1ee13:metadata_sizei434e1:pi6881e4:reqqi500e11:upload_onlyi1e1:v18:libtorrent/2.1.1.06:yourip4:\x7f\0\0\x01e";
    let mut codec = introduced();
    let mut input = BytesMut::new();
    input.extend_from_slice(&(body.len() as u32 + 2).to_be_bytes());
    input.extend_from_slice(&[20, 0]);
    input.extend_from_slice(body);
    let Some(Message::ExtHandshake(handshake)) = codec.decode(&mut input).unwrap() else {
        panic!()
    };
    assert_eq!(
        handshake.ids,
        ExtensionIds {
            ut_metadata: Some(2),
            ut_pex: Some(1),
            lt_donthave: Some(7)
        }
    );
    assert_eq!(handshake.client.as_deref(), Some("libtorrent/2.1.1.0"));
    assert_eq!(
        (handshake.metadata_size, handshake.request_queue, handshake.port),
        (Some(434), Some(500), Some(6881))
    );
    assert_eq!(handshake.your_ip, Some("127.0.0.1".parse().unwrap()));
    assert!(handshake.upload_only);
}

#[test]
fn peer_exchange_keeps_flags_with_their_peers() {
    // The first address has port 0 and is dropped; its flag must not slide to the next.
    let body = b"d5:added12:\x0a\0\0\x01\0\0\x0a\0\0\x02\0\x097:added.f2:\x01\x02e";
    let mut input = BytesMut::new();
    input.extend_from_slice(&(body.len() as u32 + 2).to_be_bytes());
    input.extend_from_slice(&[20, 1]);
    input.extend_from_slice(body);
    let Some(Message::Pex(pex)) = introduced().decode(&mut input).unwrap() else {
        panic!()
    };
    assert_eq!(pex.added, [("10.0.0.2:9".parse().unwrap(), PexFlags(2))]);
}

#[test]
fn random_bytes_never_panic_and_are_never_hoarded() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let good = encode(&mut introduced(), &all_messages()[1..]);
    for round in 0..20_000 {
        let mut codec = introduced();
        let mut bytes = good.clone();
        if round % 2 == 0 {
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len().min(400));
                bytes[at] = rng.random();
            }
        } else {
            let start = rng.random_range(0..bytes.len());
            bytes.drain(..start);
        }
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = codec.decode(&mut input) {}
        let mut short = BytesMut::from(&bytes[..rng.random_range(0..bytes.len())]);
        while let Ok(Some(_)) = codec.decode(&mut short) {}
    }
}
