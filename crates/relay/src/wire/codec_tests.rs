#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bitcoin::bip152;
use bitcoin::consensus::encode::serialize;
use bitcoin::p2p::Magic;
use bitcoin::p2p::address::{AddrV2, AddrV2Message, Address};
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::message_compact_blocks::{BlockTxn, CmpctBlock, GetBlockTxn, SendCmpct};
use bitcoin::{BlockHash, Network, Txid, Wtxid};
use dunlin_chain::ParsedBlock;
use dunlin_peer::Host;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::plain::{HEADER_LEN, MAX_PAYLOAD, sum};
use super::*;
use crate::wire::{CompactBlock, Locator, PeerAddr, Version};
use bitcoin::hashes::Hash;

const MAINNET: [u8; 4] = [0xf9, 0xbe, 0xb4, 0xd9];

fn encode(msg: &Message) -> Vec<u8> {
    let mut out = SendBuf::default();
    Codec::new(MAINNET).encode(msg, &mut out);
    out.to_vec()
}

fn decode(bytes: &[u8]) -> Result<Option<Message>, CodecError> {
    Codec::new(MAINNET).decode(&mut BytesMut::from(bytes))
}

fn envelope(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = MAINNET.to_vec();
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    bytes.extend_from_slice(&name);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&sum(&[payload]));
    bytes.extend_from_slice(payload);
    bytes
}

fn genesis() -> bitcoin::Block {
    bitcoin::constants::genesis_block(Network::Bitcoin)
}

fn version() -> Version {
    Version {
        version: 70_016,
        services: 1033,
        timestamp: 1_700_000_000,
        receiver: "203.0.113.5:8333".parse().unwrap(),
        receiver_services: 1,
        nonce: 0x1122_3344_5566_7788,
        user_agent: "/Dunlin:0.1.0/".into(),
        start_height: 800_000,
        relay: true,
    }
}

/// One of each kind, as we write it and as the `bitcoin` crate does.
fn pairs() -> Vec<(Message, NetworkMessage)> {
    let header = genesis().header;
    let tx = genesis().txdata[0].clone();
    let hash = genesis().block_hash();
    let items = vec![
        Inventory::Transaction(Txid::from_byte_array([1; 32])),
        Inventory::WTx(Wtxid::from_byte_array([2; 32])),
        Inventory::WitnessBlock(hash),
        Inventory::WitnessTransaction(Txid::from_byte_array([3; 32])),
        Inventory::Block(hash),
        Inventory::CompactBlock(hash),
        Inventory::Unknown {
            inv_type: 77,
            hash: [4; 32],
        },
    ];
    let locator = Locator {
        hashes: vec![hash; 3],
        stop: BlockHash::from_byte_array([9; 32]),
    };
    let mut theirs = GetHeadersMessage::new(locator.hashes.clone(), locator.stop);
    theirs.version = 70_017;
    let mut block = genesis();
    block.txdata = vec![tx.clone(); 4];
    let mut compact = CompactBlock::of(&ParsedBlock::from_block(block.clone()), 99).unwrap();
    compact.prefilled.push((2, Arc::new(tx.clone())));
    compact.short_ids.pop();
    let their_compact = CmpctBlock {
        compact_block: bip152::HeaderAndShortIds::from_block(&block, 99, 2, &[2]).unwrap(),
    };
    let ours = PeerAddr {
        time: 7,
        services: 1033,
        host: Host::Ip([192, 0, 2, 1].into()),
        port: 8333,
    };
    let address = Address::new(&"192.0.2.1:8333".parse().unwrap(), 1033.into());
    let onion = PeerAddr {
        host: Host::TorV3([5; 32]),
        ..ours
    };
    let v2 = |addr| AddrV2Message {
        time: 7,
        services: 1033.into(),
        addr,
        port: 8333,
    };
    let version = version();
    let theirs_version = bitcoin::p2p::message_network::VersionMessage {
        version: 70_016,
        services: 1033.into(),
        timestamp: 1_700_000_000,
        receiver: Address::new(&version.receiver, 1.into()),
        sender: Address::new(&no_addr(), 1033.into()),
        nonce: version.nonce,
        user_agent: version.user_agent.clone(),
        start_height: 800_000,
        relay: true,
    };
    vec![
        (
            Message::Version(Box::new(version)),
            NetworkMessage::Version(theirs_version),
        ),
        (Message::Verack, NetworkMessage::Verack),
        (Message::WtxidRelay, NetworkMessage::WtxidRelay),
        (Message::SendAddrV2, NetworkMessage::SendAddrV2),
        (Message::SendHeaders, NetworkMessage::SendHeaders),
        (Message::FeeFilter(1000), NetworkMessage::FeeFilter(1000)),
        (Message::Ping(5), NetworkMessage::Ping(5)),
        (Message::Pong(6), NetworkMessage::Pong(6)),
        (Message::GetAddr, NetworkMessage::GetAddr),
        (Message::Addr(vec![ours]), NetworkMessage::Addr(vec![(7, address)])),
        (
            Message::AddrV2(vec![ours, onion]),
            NetworkMessage::AddrV2(vec![
                v2(AddrV2::Ipv4([192, 0, 2, 1].into())),
                v2(AddrV2::TorV3([5; 32])),
            ]),
        ),
        (
            Message::SendCmpct {
                announce: 1,
                version: 2,
            },
            NetworkMessage::SendCmpct(SendCmpct {
                send_compact: true,
                version: 2,
            }),
        ),
        (
            Message::CompactBlock(Arc::new(compact)),
            NetworkMessage::CmpctBlock(their_compact),
        ),
        (
            Message::GetBlockTxn(crate::wire::BlockTxnRequest {
                hash,
                places: vec![0, 1, 7, 300],
            }),
            NetworkMessage::GetBlockTxn(GetBlockTxn {
                txs_request: bip152::BlockTransactionsRequest {
                    block_hash: hash,
                    indexes: vec![0, 1, 7, 300],
                },
            }),
        ),
        (
            Message::BlockTxn(crate::wire::BlockTxn {
                hash,
                txs: vec![Arc::new(tx.clone()), Arc::new(tx.clone())],
            }),
            NetworkMessage::BlockTxn(BlockTxn {
                transactions: bip152::BlockTransactions {
                    block_hash: hash,
                    transactions: vec![tx.clone(); 2],
                },
            }),
        ),
        (Message::Inv(items.clone()), NetworkMessage::Inv(items.clone())),
        (Message::GetData(items.clone()), NetworkMessage::GetData(items.clone())),
        (Message::NotFound(items.clone()), NetworkMessage::NotFound(items)),
        (Message::GetHeaders(locator), NetworkMessage::GetHeaders(theirs)),
        (
            Message::Headers(vec![header; 3]),
            NetworkMessage::Headers(vec![header; 3]),
        ),
        (
            Message::Tx {
                tx: Arc::new(tx.clone()),
                witness: true,
            },
            NetworkMessage::Tx(tx),
        ),
        (
            Message::RawBlock(serialize(&genesis()).into()),
            NetworkMessage::Block(genesis()),
        ),
        (Message::Mempool, NetworkMessage::MemPool),
    ]
}

#[test]
fn the_well_known_verack() {
    let bytes = hex::decode("f9beb4d976657261636b000000000000000000005df6e0e2").unwrap();
    assert_eq!(encode(&Message::Verack), bytes);
    assert!(matches!(decode(&bytes), Ok(Some(Message::Verack))));
}

#[test]
fn an_old_version_message_without_the_last_fields() {
    // The version message of protocol 106 ends after the receiver's address.
    let mut payload = 106i32.to_le_bytes().to_vec();
    payload.extend_from_slice(&1u64.to_le_bytes());
    payload.extend_from_slice(&1_300_000_000i64.to_le_bytes());
    payload.extend_from_slice(&[0; 26]);
    let Ok(Some(Message::Version(version))) = decode(&envelope("version", &payload)) else {
        panic!("a version")
    };
    assert_eq!((version.version, version.start_height, version.relay), (106, -1, true));
    // A user agent keeps only what is harmless, and its length has a bound.
    let with_agent = |agent: &str| {
        let Message::Version(mut version) = pairs().swap_remove(0).0 else {
            panic!("a version")
        };
        version.user_agent = agent.into();
        decode(&encode(&Message::Version(version))).unwrap().unwrap()
    };
    assert!(matches!(with_agent("/a<b>\n:1/"), Message::Version(v) if v.user_agent == "/ab:1/"));
    assert!(matches!(with_agent(&"x".repeat(256)), Message::Version(_)));
    assert!(matches!(
        with_agent(&"x".repeat(257)),
        Message::Malformed { command: "version", .. }
    ));
}

#[test]
fn every_message_reads_and_writes_as_another_implementation_does() {
    for (ours, theirs) in pairs() {
        let bytes = encode(&ours);
        let want = serialize(&RawNetworkMessage::new(Magic::BITCOIN, theirs));
        assert_eq!(bytes, want, "{}", ours.command());
        let back = decode(&bytes).unwrap().unwrap();
        assert_eq!(encode(&back), bytes, "{}", ours.command());
        assert!(
            !matches!(back, Message::Malformed { .. } | Message::Unknown { .. }),
            "{back:?}"
        );
    }
}

#[test]
fn a_prefix_is_never_a_message_and_never_an_error() {
    for (msg, _) in pairs() {
        let bytes = encode(&msg);
        for len in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..len]), Ok(None)), "{} at {len}", msg.command());
        }
    }
}

#[test]
fn a_truncated_payload_is_malformed_not_fatal() {
    for (msg, _) in pairs() {
        let bytes = encode(&msg);
        let payload = &bytes[HEADER_LEN..];
        for len in 0..payload.len() {
            let got = decode(&envelope(msg.command(), &payload[..len])).unwrap().unwrap();
            let old_version = msg.command() == "version" && [46, 80, 95, 99].contains(&len);
            let short_ping = matches!((msg.command(), len), ("ping", 0) | ("pong", _));
            // A block is parsed elsewhere.
            let unparsed = msg.command() == "block";
            if !old_version && !short_ping && !unparsed {
                assert!(
                    matches!(got, Message::Malformed { .. }),
                    "{} cut to {len}: {got:?}",
                    msg.command()
                );
            }
        }
    }
}

#[test]
fn wrong_magic_and_oversize_end_the_link() {
    assert!(decode(&[0xf9, 0xbe, 0xb5]).is_err());
    let mut other = encode(&Message::Verack);
    other[..4].copy_from_slice(&[0xfa, 0xbf, 0xb5, 0xda]);
    assert!(decode(&other).is_err());
    let mut big = encode(&Message::Verack);
    big[16..20].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_le_bytes());
    assert!(decode(&big).unwrap_err().0.contains("too large"));
    big[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(decode(&big).is_err());
    // The largest legal claim waits for its bytes without reserving them.
    big[16..20].copy_from_slice(&(MAX_PAYLOAD as u32).to_le_bytes());
    let mut input = BytesMut::from(&big[..]);
    assert!(matches!(Codec::new(MAINNET).decode(&mut input), Ok(None)));
    assert!(input.capacity() < 1024);
}

#[test]
fn a_bad_checksum_or_command_drops_the_message_alone() {
    let mut input = BytesMut::new();
    let mut bad = encode(&Message::Ping(1));
    bad[20] ^= 1;
    input.extend_from_slice(&bad);
    let mut named = envelope("ping", &2u64.to_le_bytes());
    named[4] = 0x07;
    input.extend_from_slice(&named);
    let mut padded = envelope("ping", &3u64.to_le_bytes());
    padded[14] = b'x';
    input.extend_from_slice(&padded);
    input.extend_from_slice(&encode(&Message::Ping(4)));
    let mut codec = Codec::new(MAINNET);
    assert!(matches!(codec.decode(&mut input), Ok(Some(Message::Ping(4)))));
    assert!(input.is_empty());
    assert!(matches!(
        decode(&envelope("frobnicate", &[1, 2, 3])),
        Ok(Some(Message::Unknown { len: 3, .. }))
    ));
}

#[test]
fn counts_beyond_the_bounds_are_refused() {
    let claim = |command: &str, count: u32, entry: usize| {
        let mut payload = vec![0xfe];
        payload.extend_from_slice(&count.to_le_bytes());
        payload.resize(payload.len() + entry * count as usize, 0);
        payload.truncate(MAX_PAYLOAD);
        decode(&envelope(command, &payload)).unwrap().unwrap()
    };
    for command in ["inv", "getdata", "notfound"] {
        // Fifty thousand entries need the three-byte form, so 0xfe is non-canonical for them, but not one count more
        // than 65,535: the bound itself is what refuses these.
        assert!(
            matches!(claim(command, 65_536, 36), Message::Malformed { .. }),
            "{command}"
        );
    }
    let small = |command: &str, count: u16, entry: usize, front: &[u8]| {
        let mut payload = front.to_vec();
        payload.push(0xfd);
        payload.extend_from_slice(&count.to_le_bytes());
        payload.resize(payload.len() + entry * usize::from(count) + 32, 0);
        decode(&envelope(command, &payload)).unwrap().unwrap()
    };
    assert!(matches!(small("inv", 50_000, 36, &[]), Message::Inv(items) if items.len() == 50_000));
    assert!(matches!(small("inv", 50_001, 36, &[]), Message::Malformed { .. }));
    assert!(matches!(small("headers", 2_000, 81, &[]), Message::Headers(headers) if headers.len() == 2_000));
    assert!(matches!(small("headers", 2_001, 81, &[]), Message::Malformed { .. }));
    assert!(matches!(small("addr", 1_000, 30, &[]), Message::Addr(entries) if entries.len() == 1_000));
    assert!(matches!(small("addr", 1_001, 30, &[]), Message::Malformed { .. }));
    assert!(matches!(small("addrv2", 1_001, 30, &[]), Message::Malformed { .. }));
    // 101 fits into one byte; 253 is the first that this form may carry.
    assert!(matches!(
        small("getheaders", 253, 32, &[0; 4]),
        Message::Malformed { .. }
    ));
}

#[test]
fn addresses_of_unknown_networks_are_left_out() {
    let mut payload = vec![3];
    for (network, address) in [(1u8, &[192, 0, 2, 7][..]), (99, &[1, 2, 3]), (2, &[0xfd; 16])] {
        payload.extend_from_slice(&[1, 0, 0, 0, 9, network, address.len() as u8]);
        payload.extend_from_slice(address);
        payload.extend_from_slice(&8333u16.to_be_bytes());
    }
    let Ok(Some(Message::AddrV2(entries))) = decode(&envelope("addrv2", &payload)) else {
        panic!("addresses")
    };
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].addr().socket_addr(), Some("192.0.2.7:8333".parse().unwrap()));
    // A known network with a wrong length is malformed.
    let wrong = [1, 1, 0, 0, 0, 9, 1, 3, 1, 2, 3, 0, 1];
    assert!(matches!(
        decode(&envelope("addrv2", &wrong)),
        Ok(Some(Message::Malformed { .. }))
    ));
}

#[test]
fn random_payloads_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let samples: Vec<(String, Vec<u8>)> = pairs()
        .iter()
        .map(|(msg, _)| (msg.command().to_owned(), encode(msg)[HEADER_LEN..].to_vec()))
        .collect();
    for _ in 0..40_000 {
        let (command, payload) = &samples[rng.random_range(0..samples.len())];
        let mut payload = payload.clone();
        if rng.random_bool(0.3) {
            payload = vec![0; rng.random_range(0..300)];
            rng.fill_bytes(&mut payload);
        }
        for _ in 0..rng.random_range(0..6) {
            if !payload.is_empty() {
                let place = rng.random_range(0..payload.len());
                payload[place] = rng.random();
            }
        }
        if rng.random_bool(0.3) {
            payload.truncate(rng.random_range(0..=payload.len()));
        }
        let msg = decode(&envelope(command, &payload)).unwrap().unwrap();
        encode(&msg);
    }
}

#[test]
fn random_streams_never_panic_and_never_hold_more_than_came() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..2_000 {
        let mut stream = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            let pairs = pairs();
            stream.extend_from_slice(&encode(&pairs[rng.random_range(0..pairs.len())].0));
        }
        for _ in 0..rng.random_range(0..3) {
            let place = rng.random_range(0..stream.len());
            stream[place] = rng.random();
        }
        let mut codec = Codec::new(MAINNET);
        let mut input = BytesMut::new();
        for part in stream.chunks(rng.random_range(1..200)) {
            input.extend_from_slice(part);
            let before = input.capacity();
            loop {
                match codec.decode(&mut input) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => input.clear(),
                }
                if input.is_empty() {
                    break;
                }
            }
            assert!(input.capacity() <= before, "the codec reserved memory");
        }
    }
}
