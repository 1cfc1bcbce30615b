//! The DHT's messages (BEP 5) with the fields of BEP 32 (IPv6), 42 (`ip`), 43 (`ro`), 44 (items), 51 (samples).
//!
//! Bytes in, typed values out. Fields that a message must have are demanded; whatever else is in it is left alone.

use std::net::SocketAddr;

use super::node_id::NodeId;
use crate::InfoHash;
use crate::bencode::{Document, Item, Limits, Value};
use crate::tracker::{compact_v4, compact_v6, v4_from, v6_from};

/// How deep and how large a datagram's value may be.
const LIMITS: Limits = Limits {
    depth: 12,
    values: 1_000,
};
/// The longest transaction id that is given back.
const MAX_TRANSACTION: usize = 32;
/// The longest write token that is kept.
const MAX_TOKEN: usize = 128;
/// Nodes taken from one answer.
const MAX_NODES: usize = 32;
/// Peers taken from one answer.
const MAX_VALUES: usize = 300;
/// Our client and version, as every message names it: `DN`, 0.1.
const VERSION: &[u8] = b"DN\x00\x01";

/// A node with the address at which it was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) id: NodeId,
    pub(crate) addr: SocketAddr,
}

/// Which families' nodes an answer should hold (BEP 32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

/// A value to store (BEP 44).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    /// The bencoded value, as it came.
    pub(crate) value: Vec<u8>,
    /// With a key the item is mutable.
    pub(crate) signed: Option<Signed>,
    /// Only replace an item of this sequence number.
    pub(crate) cas: Option<i64>,
}

/// What makes an item mutable: who signed it, and how new it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) key: [u8; 32],
    pub(crate) salt: Vec<u8>,
    pub(crate) sequence: i64,
    pub(crate) signature: [u8; 64],
}

/// What a node asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    Ping,
    FindNode {
        target: NodeId,
        want: Want,
    },
    GetPeers {
        info_hash: InfoHash,
        want: Want,
    },
    AnnouncePeer {
        info_hash: InfoHash,
        /// `None`: the port that the datagram came from.
        port: Option<u16>,
        token: Vec<u8>,
    },
    Get {
        target: NodeId,
        /// Only items newer than this are of use.
        sequence: Option<i64>,
        want: Want,
    },
    Put {
        token: Vec<u8>,
        put: Put,
    },
    SampleInfohashes {
        target: NodeId,
        want: Want,
    },
    /// A method that we do not know; with a target it is answered like `find_node`, as BEP 5's successors ask.
    Unknown,
}

/// What a node answers. Every answer may hold any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) nodes: Vec<Contact>,
    pub(crate) token: Option<Vec<u8>>,
    pub(crate) values: Vec<SocketAddr>,
    pub(crate) item: Option<(Vec<u8>, Option<Signed>)>,
    pub(crate) samples: Vec<InfoHash>,
    /// With samples: seconds until another question makes sense, and how many info hashes the node has in all.
    pub(crate) sampling: Option<(u32, u32)>,
}

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Query { id: NodeId, query: Query },
    Answer { id: NodeId, answer: Answer },
    Error { code: i64, text: String },
}

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) transaction: Vec<u8>,
    pub(crate) body: Body,
    /// The sender answers no queries (BEP 43).
    pub(crate) read_only: bool,
    /// Our address as the sender sees it (BEP 42).
    pub(crate) ip: Option<SocketAddr>,
}

/// Why a datagram is not answered with what it asks for; the codes are BEP 5's and BEP 44's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) i64, pub(crate) &'static str);

impl Fault {
    pub(crate) const PROTOCOL: Self = Self(203, "malformed message");
    pub(crate) const METHOD: Self = Self(204, "unknown method");
}

/// A query that cannot be understood, with what is needed to say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadQuery {
    pub(crate) transaction: Vec<u8>,
    pub(crate) fault: Fault,
}

impl Message {
    /// Reads a datagram. `Err(None)` is no message at all and deserves no answer.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Option<BadQuery>> {
        let doc = Document::parse(bytes, LIMITS).map_err(|_| None)?;
        let root = doc.root();
        let transaction = field(&root, b"t")
            .filter(|t| !t.is_empty() && t.len() <= MAX_TRANSACTION)
            .ok_or(None)?
            .to_vec();
        let body = match field(&root, b"y").ok_or(None)? {
            b"q" => match query(&root) {
                Ok((id, query)) => Body::Query { id, query },
                Err(fault) => return Err(Some(BadQuery { transaction, fault })),
            },
            b"r" => {
                let values = root.get(b"r").ok_or(None)?;
                Body::Answer {
                    id: name(&values, b"id").ok_or(None)?,
                    answer: answer(&values),
                }
            }
            b"e" => error(&root),
            _ => return Err(None),
        };
        Ok(Self {
            transaction,
            body,
            read_only: root.get(b"ro").and_then(|ro| ro.as_int()) == Some(1),
            ip: field(&root, b"ip").and_then(address),
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut root = Item::dict().with("t", &self.transaction[..]).with("v", VERSION);
        match &self.body {
            Body::Query { id, query } => {
                let (method, arguments) = encode_query(id, query);
                root.insert("y", "q");
                root.insert("q", method);
                root.insert("a", arguments);
            }
            Body::Answer { id, answer } => {
                root.insert("y", "r");
                root.insert("r", encode_answer(id, answer));
            }
            Body::Error { code, text } => {
                root.insert("y", "e");
                root.insert("e", Item::List(vec![Item::Int(*code), text.as_str().into()]));
            }
        }
        if self.read_only {
            root.insert("ro", 1u32);
        }
        if let Some(ip) = self.ip {
            root.insert("ip", compact(&ip));
        }
        root.encode()
    }
}

fn field<'a>(dict: &Value<'a, '_>, key: &[u8]) -> Option<&'a [u8]> {
    dict.get(key)?.as_bytes()
}

fn name(dict: &Value<'_, '_>, key: &[u8]) -> Option<NodeId> {
    Some(NodeId(field(dict, key)?.try_into().ok()?))
}

fn hash(dict: &Value<'_, '_>) -> Option<InfoHash> {
    Some(InfoHash(field(dict, b"info_hash")?.try_into().ok()?))
}

fn token(dict: &Value<'_, '_>) -> Option<Vec<u8>> {
    let token = field(dict, b"token")?;
    (token.len() <= MAX_TOKEN).then(|| token.to_vec())
}

/// Reads an address of six or eighteen bytes.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    match bytes.len() {
        6 => v4_from(bytes.try_into().ok()?),
        18 => v6_from(bytes.try_into().ok()?),
        _ => None,
    }
}

/// An address in six or eighteen bytes.
fn compact(addr: &SocketAddr) -> Vec<u8> {
    match addr {
        SocketAddr::V4(addr) => compact_v4(addr).to_vec(),
        SocketAddr::V6(addr) => compact_v6(addr).to_vec(),
    }
}

fn want(arguments: &Value<'_, '_>) -> Want {
    let mut want = Want::default();
    for item in arguments
        .get(b"want")
        .and_then(|list| list.items())
        .into_iter()
        .flatten()
    {
        match item.as_bytes() {
            Some(b"n4") => want.v4 = true,
            Some(b"n6") => want.v6 = true,
            _ => {}
        }
    }
    want
}

fn query(root: &Value<'_, '_>) -> Result<(NodeId, Query), Fault> {
    let method = field(root, b"q").ok_or(Fault::PROTOCOL)?;
    let arguments = root.get(b"a").filter(Value::is_dict).ok_or(Fault::PROTOCOL)?;
    let id = name(&arguments, b"id").ok_or(Fault::PROTOCOL)?;
    let target = || name(&arguments, b"target").ok_or(Fault::PROTOCOL);
    let want = want(&arguments);
    let query = match method {
        b"ping" => Query::Ping,
        b"find_node" => Query::FindNode {
            target: target()?,
            want,
        },
        b"get_peers" => Query::GetPeers {
            info_hash: hash(&arguments).ok_or(Fault::PROTOCOL)?,
            want,
        },
        b"announce_peer" => Query::AnnouncePeer {
            info_hash: hash(&arguments).ok_or(Fault::PROTOCOL)?,
            port: announced_port(&arguments)?,
            token: token(&arguments).ok_or(Fault::PROTOCOL)?,
        },
        b"get" => Query::Get {
            target: target()?,
            sequence: arguments.get(b"seq").and_then(|seq| seq.as_int()),
            want,
        },
        b"put" => Query::Put {
            token: token(&arguments).ok_or(Fault::PROTOCOL)?,
            put: Put {
                value: arguments.get(b"v").ok_or(Fault::PROTOCOL)?.raw().to_vec(),
                signed: match arguments.get(b"k") {
                    Some(_) => Some(signed(&arguments).ok_or(Fault::PROTOCOL)?),
                    None => None,
                },
                cas: arguments.get(b"cas").and_then(|cas| cas.as_int()),
            },
        },
        b"sample_infohashes" => Query::SampleInfohashes {
            target: target()?,
            want,
        },
        _ => match name(&arguments, b"target").or_else(|| hash(&arguments).map(|hash| NodeId(hash.0))) {
            Some(target) => Query::FindNode { target, want },
            None => Query::Unknown,
        },
    };
    Ok((id, query))
}

fn announced_port(arguments: &Value<'_, '_>) -> Result<Option<u16>, Fault> {
    let implied = arguments.get(b"implied_port").and_then(|flag| flag.as_int());
    if implied.is_some_and(|flag| flag != 0) {
        return Ok(None);
    }
    let port = arguments.get(b"port").and_then(|port| port.as_u64());
    match port.and_then(|port| u16::try_from(port).ok()) {
        Some(port) if port != 0 => Ok(Some(port)),
        _ => Err(Fault::PROTOCOL),
    }
}

fn signed(dict: &Value<'_, '_>) -> Option<Signed> {
    Some(Signed {
        key: field(dict, b"k")?.try_into().ok()?,
        salt: field(dict, b"salt").unwrap_or_default().to_vec(),
        sequence: dict.get(b"seq")?.as_int()?,
        signature: field(dict, b"sig")?.try_into().ok()?,
    })
}

fn answer(values: &Value<'_, '_>) -> Answer {
    let mut nodes = Vec::new();
    for entry in field(values, b"nodes").unwrap_or_default().as_chunks::<26>().0 {
        nodes.extend(contact(entry));
    }
    for entry in field(values, b"nodes6").unwrap_or_default().as_chunks::<38>().0 {
        nodes.extend(contact(entry));
    }
    nodes.truncate(MAX_NODES);
    let peers = values.get(b"values").and_then(|list| list.items());
    let item = values.get(b"v").map(|value| (value.raw().to_vec(), signed(values)));
    let number = |key: &[u8]| {
        let number = values.get(key).and_then(|number| number.as_u64());
        number.and_then(|number| u32::try_from(number).ok())
    };
    let samples = field(values, b"samples");
    Answer {
        nodes,
        token: token(values),
        values: peers
            .into_iter()
            .flatten()
            .take(MAX_VALUES)
            .filter_map(|peer| address(peer.as_bytes()?))
            .collect(),
        item,
        samples: samples
            .unwrap_or_default()
            .as_chunks::<20>()
            .0
            .iter()
            .map(|hash| InfoHash(*hash))
            .collect(),
        sampling: samples.map(|_| (number(b"interval").unwrap_or(0), number(b"num").unwrap_or(0))),
    }
}

fn contact(entry: &[u8]) -> Option<Contact> {
    let (id, addr) = entry.split_first_chunk::<20>()?;
    Some(Contact {
        id: NodeId(*id),
        addr: address(addr)?,
    })
}

fn error(root: &Value<'_, '_>) -> Body {
    let mut items = root.get(b"e").and_then(|list| list.items()).into_iter().flatten();
    let code = items.next().and_then(|code| code.as_int()).unwrap_or(201);
    let text = items.next().and_then(|text| text.as_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(text)
        .chars()
        .filter(|c| !c.is_control())
        .take(100)
        .collect();
    Body::Error { code, text }
}

fn encode_query(id: &NodeId, query: &Query) -> (&'static str, Item) {
    let arguments = Item::dict().with("id", &id.0[..]);
    let targeted = |arguments: Item, key: &str, target: &[u8; 20], want: &Want| {
        let mut arguments = arguments.with(key, &target[..]);
        let families = [(want.v4, "n4"), (want.v6, "n6")];
        let families: Vec<Item> = families
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| (*name).into())
            .collect();
        if !families.is_empty() {
            arguments.insert("want", Item::List(families));
        }
        arguments
    };
    match query {
        Query::Ping | Query::Unknown => ("ping", arguments),
        Query::FindNode { target, want } => ("find_node", targeted(arguments, "target", &target.0, want)),
        Query::GetPeers { info_hash, want } => ("get_peers", targeted(arguments, "info_hash", &info_hash.0, want)),
        Query::AnnouncePeer { info_hash, port, token } => {
            let arguments = arguments
                .with("info_hash", &info_hash.0[..])
                .with("port", u32::from(port.unwrap_or(0)))
                .with("implied_port", u32::from(port.is_none()))
                .with("token", &token[..]);
            ("announce_peer", arguments)
        }
        Query::Get { target, sequence, want } => {
            let mut arguments = targeted(arguments, "target", &target.0, want);
            if let Some(sequence) = sequence {
                arguments.insert("seq", *sequence);
            }
            ("get", arguments)
        }
        Query::Put { token, put } => {
            let mut arguments = arguments
                .with("token", &token[..])
                .with("v", Item::Raw(put.value.clone()));
            if let Some(signed) = &put.signed {
                insert_signed(&mut arguments, signed);
                if !signed.salt.is_empty() {
                    arguments.insert("salt", &signed.salt[..]);
                }
            }
            if let Some(cas) = put.cas {
                arguments.insert("cas", cas);
            }
            ("put", arguments)
        }
        Query::SampleInfohashes { target, want } => {
            ("sample_infohashes", targeted(arguments, "target", &target.0, want))
        }
    }
}

fn insert_signed(dict: &mut Item, signed: &Signed) {
    dict.insert("k", &signed.key[..]);
    dict.insert("seq", signed.sequence);
    dict.insert("sig", &signed.signature[..]);
}

fn encode_answer(id: &NodeId, answer: &Answer) -> Item {
    let mut values = Item::dict().with("id", &id.0[..]);
    for (key, v4) in [("nodes", true), ("nodes6", false)] {
        let mut bytes = Vec::new();
        for node in answer.nodes.iter().filter(|node| node.addr.is_ipv4() == v4) {
            bytes.extend_from_slice(&node.id.0);
            bytes.extend_from_slice(&compact(&node.addr));
        }
        if !bytes.is_empty() {
            values.insert(key, bytes);
        }
    }
    if let Some(token) = &answer.token {
        values.insert("token", &token[..]);
    }
    if !answer.values.is_empty() {
        let peers = answer.values.iter().map(|peer| Item::Bytes(compact(peer))).collect();
        values.insert("values", Item::List(peers));
    }
    if let Some((value, signed)) = &answer.item {
        values.insert("v", Item::Raw(value.clone()));
        if let Some(signed) = signed {
            insert_signed(&mut values, signed);
        }
    }
    if let Some((interval, num)) = answer.sampling {
        values.insert("interval", interval);
        values.insert("num", num);
        let samples: Vec<u8> = answer.samples.iter().flat_map(|hash| hash.0).collect();
        values.insert("samples", samples);
    }
    values
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: NodeId = NodeId(*b"abcdefghij0123456789");
    const OTHER: NodeId = NodeId(*b"mnopqrstuvwxyz123456");

    fn decoded(bytes: &[u8]) -> Message {
        Message::decode(bytes).unwrap()
    }

    /// The examples of BEP 5.
    #[test]
    fn the_examples_of_bep_5_are_read() {
        let ping = decoded(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe");
        assert_eq!(ping.transaction, b"aa");
        assert_eq!(
            ping.body,
            Body::Query {
                id: ID,
                query: Query::Ping
            }
        );
        let find =
            decoded(b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe");
        let want = Want::default();
        let query = Query::FindNode { target: OTHER, want };
        assert_eq!(find.body, Body::Query { id: ID, query });
        let peers =
            decoded(b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re");
        let Body::Answer { answer, .. } = peers.body else {
            panic!()
        };
        assert_eq!(answer.token.unwrap(), b"aoeusnth");
        assert_eq!(
            answer.values,
            [
                "97.120.106.101:11893".parse().unwrap(),
                "105.100.104.116:28269".parse().unwrap()
            ]
        );
        let announce = decoded(
            b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:\
              aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
        );
        let query = Query::AnnouncePeer {
            info_hash: InfoHash(OTHER.0),
            port: None,
            token: b"aoeusnth".to_vec(),
        };
        assert_eq!(announce.body, Body::Query { id: ID, query });
        let error = decoded(b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee");
        let text = "A Generic Error Ocurred".to_owned();
        assert_eq!(error.body, Body::Error { code: 201, text });
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let contact = |n: u8, addr: &str| Contact {
            id: NodeId([n; 20]),
            addr: addr.parse().unwrap(),
        };
        let signed = Signed {
            key: [1; 32],
            salt: b"salt".to_vec(),
            sequence: -5,
            signature: [2; 64],
        };
        let want = Want { v4: true, v6: true };
        let queries = [
            Query::Ping,
            Query::FindNode { target: OTHER, want },
            Query::GetPeers {
                info_hash: InfoHash(OTHER.0),
                want: Want::default(),
            },
            Query::AnnouncePeer {
                info_hash: InfoHash([7; 20]),
                port: Some(6881),
                token: vec![1, 2],
            },
            Query::Get {
                target: OTHER,
                sequence: Some(4),
                want,
            },
            Query::Put {
                token: vec![9],
                put: Put {
                    value: b"5:hello".to_vec(),
                    signed: Some(signed.clone()),
                    cas: Some(3),
                },
            },
            Query::Put {
                token: vec![],
                put: Put {
                    value: b"li1ee".to_vec(),
                    signed: None,
                    cas: None,
                },
            },
            Query::SampleInfohashes { target: OTHER, want },
        ];
        let answer = Answer {
            nodes: vec![contact(3, "1.2.3.4:5"), contact(4, "[2001::1]:99")],
            token: Some(b"tok".to_vec()),
            values: vec!["9.8.7.6:5432".parse().unwrap()],
            item: Some((
                b"i7e".to_vec(),
                Some(Signed {
                    salt: Vec::new(),
                    ..signed
                }),
            )),
            samples: vec![InfoHash([5; 20]), InfoHash([6; 20])],
            sampling: Some((60, 2)),
        };
        let bodies = queries.into_iter().map(|query| Body::Query { id: ID, query }).chain([
            Body::Answer { id: ID, answer },
            Body::Answer {
                id: ID,
                answer: Answer::default(),
            },
            Body::Error {
                code: 203,
                text: "no".to_owned(),
            },
        ]);
        for body in bodies {
            let message = Message {
                transaction: vec![0, 255],
                body,
                read_only: true,
                ip: Some("4.3.2.1:1".parse().unwrap()),
            };
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            for len in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..len]), Err(None));
            }
        }
    }

    #[test]
    fn queries_that_lack_something_are_told_so() {
        let bad = |bytes: &[u8]| Message::decode(bytes).unwrap_err().unwrap().fault;
        assert_eq!(bad(b"d1:ade1:q4:ping1:t2:aa1:y1:qe"), Fault::PROTOCOL);
        assert_eq!(
            bad(b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe"),
            Fault::PROTOCOL
        );
        assert_eq!(bad(b"d1:q4:ping1:t2:aa1:y1:qe"), Fault::PROTOCOL);
        assert_eq!(Message::decode(b"d1:y1:qe"), Err(None), "nothing to answer to");
        let unknown = decoded(b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe");
        assert_eq!(
            unknown.body,
            Body::Query {
                id: ID,
                query: Query::Unknown
            }
        );
    }
}
