//! The torrent engine against a sequence of operations: peers that connect, say anything and vanish, a disk and a
//! tracker that answer late, wrongly or never, commands, time. Nothing may panic, and one input may not set off more
//! than a bounded number of outputs.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::BytesMut;
use dunlin_fuzz::torrents::{Ask, TORRENTS, addr, bytes_of, command, disk_answer, shake, source};
use dunlin_peer::{
    Codec as _, DialToken, Direction, DisconnectCause, Input, Link, LinkId, Machine, Now, Output, SendBuf,
};
use dunlin_torrent::Metainfo;
use dunlin_torrent::disk;
use dunlin_torrent::session::{AddTorrent, Command, Config, Done, Job, Session};
use dunlin_torrent::tracker::{TrackerError, http};
use dunlin_torrent::wire::{Block, Codec, ExtHandshake, ExtensionIds, Message, Metadata, Pex, PexFlags, Reserved};
use libfuzzer_sys::fuzz_target;

/// Outputs that one input may set off: choking a peer rejects each of its requests, 2000 at most.
const MOST_OUTPUTS: usize = 10_000;

#[derive(Arbitrary, Debug)]
enum Op {
    /// A peer connects, shakes hands, has everything (or nothing) and unchokes us.
    Sound {
        addr: u8,
        torrent: u8,
        seed: bool,
    },
    /// The disk does everything, and well.
    Disks,
    /// Every peer answers what it was asked, as long as it is asked more.
    Feed,
    Connect {
        addr: u8,
    },
    DialOk {
        dial: u8,
    },
    DialFailed {
        dial: u8,
    },
    Shake {
        link: u8,
        torrent: u8,
        peer: u8,
        reserved: [u8; 8],
    },
    Say {
        link: u8,
        what: Say,
    },
    Bytes {
        link: u8,
        bytes: Vec<u8>,
    },
    Close {
        link: u8,
        codec: bool,
    },
    Writable {
        link: u8,
    },
    Wait {
        millis: u16,
    },
    WaitLong {
        secs: u16,
    },
    Disk {
        job: u8,
        how: u8,
    },
    Tracker {
        job: u8,
        body: Option<Vec<u8>>,
    },
    Command(Ask),
}

#[derive(Arbitrary, Debug)]
enum Say {
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    Have(u8),
    Bitfield(Vec<u8>),
    HaveAll,
    HaveNone,
    Request {
        piece: u8,
        block: u8,
        odd: u32,
    },
    Requests {
        piece: u8,
        count: u16,
    },
    /// The right block when `good`.
    Piece {
        piece: u8,
        block: u8,
        good: bool,
        len: u16,
    },
    /// Answers what was asked on this link, oldest first.
    Answer {
        count: u8,
        good: bool,
    },
    Cancel {
        piece: u8,
        block: u8,
    },
    Suggest(u32),
    Reject {
        piece: u8,
        block: u8,
    },
    AllowedFast(u8),
    Ext {
        ids: [Option<u8>; 3],
        size: Option<u32>,
        reqq: Option<u32>,
        port: Option<u16>,
        upload_only: bool,
    },
    /// The magnet's own size.
    ExtGood,
    MetadataRequest(u8),
    MetadataData {
        piece: u8,
        good: bool,
        len: u16,
    },
    MetadataReject(u8),
    Pex {
        added: Vec<(u8, u8)>,
        dropped: Vec<u8>,
    },
    DontHave(u8),
    Port(u16),
}

struct Peer {
    codec: Codec,
    input: BytesMut,
    torrent: usize,
    asked: VecDeque<Block>,
}

struct World {
    now: Now,
    session: Session,
    peers: BTreeMap<LinkId, Peer>,
    dials: Vec<(SocketAddr, DialToken)>,
    disk: Vec<disk::Job>,
    announces: Vec<dunlin_torrent::tracker::Request>,
    next_link: u64,
}

fuzz_target!(|ops: Vec<Op>| {
    let now = Now::from_unix_secs(1_800_000_000);
    let mut config = Config::new([7; 32]);
    config.listen_port = Some(6881);
    config.resume_dir = Some("/nowhere/resume".into());
    let mut world = World {
        now,
        session: Session::new(config, now),
        peers: BTreeMap::new(),
        dials: Vec::new(),
        disk: Vec::new(),
        announces: Vec::new(),
        next_link: 1,
    };
    for n in 0..3 {
        let add = AddTorrent::new(source(n), "/nowhere".into());
        world.input(Input::Command(Command::Add(Box::new(add))));
    }
    for op in ops {
        world.apply(op);
    }
    for status in world.session.status(world.now) {
        assert!(status.done_bytes <= status.total_bytes);
    }
});

impl World {
    fn input(&mut self, input: Input<Message, Command, Done>) {
        self.session.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.session.poll() {
            outputs += 1;
            assert!(outputs <= MOST_OUTPUTS, "an input set off too much");
            match output {
                Output::Send { link, msg } => self.sent(link, &msg),
                Output::Dial { addr, token } => self.dials.push((addr, token)),
                Output::Close { link, reason } => {
                    if self.peers.remove(&link).is_some() {
                        let cause = DisconnectCause::Ours(reason);
                        self.session.handle(self.now, Input::Disconnected { link, cause });
                    }
                }
                Output::Job(Job::Disk(job)) => self.disk.push(job),
                // These sessions run without the DHT.
                Output::Job(Job::Resolve { .. } | Job::SaveDht { .. }) | Output::Datagram { .. } => {}
                Output::Job(Job::Announce(request)) => self.announces.push(request),
                Output::PauseRead { .. } | Output::ResumeRead { .. } | Output::Event(_) => {}
            }
        }
    }

    fn sent(&mut self, link: LinkId, msg: &Message) {
        let Some(peer) = self.peers.get_mut(&link) else {
            return;
        };
        let mut out = SendBuf::default();
        peer.codec.encode(msg, &mut out);
        match *msg {
            Message::Request(block) => {
                assert!(TORRENTS[peer.torrent].contains(block), "asked for {block:?}");
                peer.asked.push_back(block);
            }
            Message::Cancel(block) => peer.asked.retain(|asked| *asked != block),
            Message::Handshake(shake) => {
                let is = |torrent: &Arc<Metainfo>| torrent.info_hash == shake.info_hash;
                peer.torrent = TORRENTS.iter().position(is).expect("a torrent that was added");
            }
            _ => {}
        }
    }

    fn connect(&mut self, addr: SocketAddr, token: Option<DialToken>) {
        let link = Link {
            id: LinkId(self.next_link),
            addr,
            bind: None,
            direction: if token.is_some() {
                Direction::Outbound
            } else {
                Direction::Inbound
            },
            token,
        };
        self.next_link += 1;
        self.peers.insert(
            link.id,
            Peer {
                codec: Codec::new(),
                input: BytesMut::new(),
                torrent: 0,
                asked: VecDeque::new(),
            },
        );
        self.input(Input::Connected(link));
    }

    fn link(&self, n: u8) -> Option<LinkId> {
        let at = usize::from(n) % self.peers.len().max(1);
        self.peers.keys().nth(at).copied()
    }

    /// The message goes through the wire, so that the engine only sees what a codec lets pass.
    fn say(&mut self, link: LinkId, message: &Message) {
        let mut out = SendBuf::default();
        let mut codec = Codec::new();
        let ours = ExtHandshake {
            ids: ExtensionIds::OURS,
            ..ExtHandshake::default()
        };
        let mut hello = SendBuf::default();
        for first in [shake(0, 0, [0; 8]), Message::ExtHandshake(ours)] {
            codec.encode(&first, &mut hello);
        }
        let mut hello = BytesMut::from(&hello.to_vec()[..]);
        while let Ok(Some(_)) = codec.decode(&mut hello) {}
        codec.encode(message, &mut out);
        self.bytes(link, &out.to_vec());
    }

    fn bytes(&mut self, link: LinkId, bytes: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.input.extend_from_slice(bytes);
        }
        while let Some(peer) = self.peers.get_mut(&link) {
            match peer.codec.decode(&mut peer.input) {
                Ok(Some(msg)) => {
                    if let Message::Handshake(shake) = msg {
                        let is = |torrent: &Arc<Metainfo>| torrent.info_hash == shake.info_hash;
                        peer.torrent = TORRENTS.iter().position(is).unwrap_or(0);
                    }
                    self.input(Input::Received { link, msg });
                }
                Ok(None) => return,
                Err(error) => return self.close(link, DisconnectCause::Codec(error.0)),
            }
        }
    }

    fn close(&mut self, link: LinkId, cause: DisconnectCause) {
        self.peers.remove(&link);
        self.input(Input::Disconnected { link, cause });
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Sound { addr: n, torrent, seed } => {
                self.connect(addr(n), None);
                let id = LinkId(self.next_link - 1);
                self.say(id, &shake(torrent, n, Reserved::OURS.0));
                self.speak(id, Say::ExtGood);
                self.speak(id, if seed { Say::HaveAll } else { Say::HaveNone });
                self.speak(id, Say::Unchoke);
                self.speak(id, Say::Interested);
            }
            Op::Disks => {
                for job in std::mem::take(&mut self.disk) {
                    self.input(Input::Done(Done::Disk(disk_answer(job, 0))));
                }
            }
            Op::Feed => {
                let links: Vec<LinkId> = self.peers.keys().copied().collect();
                for link in links {
                    self.speak(link, Say::Answer { count: 50, good: true });
                }
            }
            Op::Connect { addr: n } => self.connect(addr(n), None),
            Op::DialOk { dial } => {
                if let Some((addr, token)) = pick(&mut self.dials, dial) {
                    self.connect(addr, Some(token));
                }
            }
            Op::DialFailed { dial } => {
                if let Some((addr, token)) = pick(&mut self.dials, dial) {
                    self.input(Input::DialFailed { addr, token });
                }
            }
            Op::Shake {
                link,
                torrent,
                peer,
                reserved,
            } => {
                if let Some(link) = self.link(link) {
                    self.say(link, &shake(torrent, peer, reserved));
                }
            }
            Op::Say { link, what } => {
                if let Some(link) = self.link(link) {
                    self.speak(link, what);
                }
            }
            Op::Bytes { link, bytes } => {
                if let Some(link) = self.link(link) {
                    self.bytes(link, &bytes);
                }
            }
            Op::Close { link, codec } => {
                if let Some(link) = self.link(link) {
                    let cause = if codec {
                        DisconnectCause::Codec("nonsense".into())
                    } else {
                        DisconnectCause::Remote
                    };
                    self.close(link, cause);
                }
            }
            Op::Writable { link } => {
                if let Some(link) = self.link(link) {
                    self.input(Input::Writable { link });
                }
            }
            Op::Wait { millis } => self.wait(Duration::from_millis(millis.into())),
            Op::WaitLong { secs } => self.wait(Duration::from_secs(secs.into())),
            Op::Disk { job, how } => {
                if let Some(job) = pick(&mut self.disk, job) {
                    self.input(Input::Done(Done::Disk(disk_answer(job, how))));
                }
            }
            Op::Tracker { job, body } => {
                if let Some(request) = pick(&mut self.announces, job) {
                    let result = body.map_or(Err(TrackerError::Timeout), |body| http::parse(&body));
                    self.input(Input::Done(Done::Announced { request, result }));
                }
            }
            Op::Command(ask) => self.input(Input::Command(command(ask))),
        }
    }

    /// Lets time pass in at most fifty steps.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..50 {
            let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.session.handle_timeout(end);
        self.drain();
    }

    fn speak(&mut self, link: LinkId, what: Say) {
        let Some(peer) = self.peers.get_mut(&link) else {
            return;
        };
        let metainfo = &TORRENTS[peer.torrent];
        let index = |piece: u8| u32::from(piece) % (metainfo.piece_count() + 1);
        let block = |piece: u8, block: u8| Block {
            piece: index(piece),
            begin: u32::from(block % 4) * 16_384,
            len: metainfo
                .block(index(piece), u32::from(block % 4))
                .map_or(16_384, |block| block.len),
        };
        let message = match what {
            Say::Choke => Message::Choke,
            Say::Unchoke => Message::Unchoke,
            Say::Interested => Message::Interested,
            Say::NotInterested => Message::NotInterested,
            Say::Have(piece) => Message::Have(index(piece)),
            Say::Bitfield(bytes) => Message::Bitfield(bytes.into()),
            Say::HaveAll => Message::HaveAll,
            Say::HaveNone => Message::HaveNone,
            Say::Request { piece, block: n, odd } => Message::Request(Block {
                len: block(piece, n).len ^ odd,
                ..block(piece, n)
            }),
            Say::Requests { piece, count } => {
                for n in 0..count % 3000 {
                    let begin = u32::from(n) * 16;
                    let request = Message::Request(Block {
                        piece: index(piece),
                        begin,
                        len: 16,
                    });
                    self.say(link, &request);
                }
                return;
            }
            Say::Piece {
                piece,
                block: n,
                good,
                len,
            } => {
                let block = block(piece, n);
                let data = if good {
                    bytes_of(metainfo, block)
                } else {
                    vec![9; len.into()].into()
                };
                Message::Piece {
                    piece: block.piece,
                    begin: block.begin,
                    data,
                }
            }
            Say::Answer { count, good } => {
                for _ in 0..count {
                    let Some(block) = self.peers.get_mut(&link).and_then(|peer| peer.asked.pop_front()) else {
                        return;
                    };
                    let mut data = bytes_of(metainfo, block);
                    if !good {
                        data = vec![0xaa; data.len()].into();
                    }
                    self.say(
                        link,
                        &Message::Piece {
                            piece: block.piece,
                            begin: block.begin,
                            data,
                        },
                    );
                }
                return;
            }
            Say::Cancel { piece, block: n } => Message::Cancel(block(piece, n)),
            Say::Suggest(piece) => Message::Suggest(piece),
            Say::Reject { piece, block: n } => Message::Reject(
                peer.asked
                    .get(usize::from(n))
                    .copied()
                    .unwrap_or_else(|| block(piece, n)),
            ),
            Say::AllowedFast(piece) => Message::AllowedFast(index(piece)),
            Say::Ext {
                ids: [ut_metadata, ut_pex, lt_donthave],
                size,
                reqq,
                port,
                upload_only,
            } => {
                let ids = ExtensionIds {
                    ut_metadata,
                    ut_pex,
                    lt_donthave,
                };
                Message::ExtHandshake(ExtHandshake {
                    ids,
                    client: Some("fuzz".into()),
                    port,
                    request_queue: reqq,
                    metadata_size: size,
                    your_ip: None,
                    upload_only,
                })
            }
            Say::ExtGood => Message::ExtHandshake(ExtHandshake {
                ids: ExtensionIds::OURS,
                metadata_size: Some(metainfo.raw_info.len() as u32),
                ..ExtHandshake::default()
            }),
            Say::MetadataRequest(piece) => Message::Metadata(Metadata::Request { piece: piece.into() }),
            Say::MetadataData { piece, good, len } => Message::Metadata(if good {
                let data = metainfo.raw_info.clone();
                Metadata::Data {
                    piece: 0,
                    total_size: data.len() as u32,
                    data,
                }
            } else {
                let data = vec![5; usize::from(len % 16_385)].into();
                Metadata::Data {
                    piece: piece.into(),
                    total_size: len.into(),
                    data,
                }
            }),
            Say::MetadataReject(piece) => Message::Metadata(Metadata::Reject { piece: piece.into() }),
            Say::Pex { added, dropped } => Message::Pex(Pex {
                added: added.into_iter().map(|(n, flags)| (addr(n), PexFlags(flags))).collect(),
                dropped: dropped.into_iter().map(addr).collect(),
            }),
            Say::DontHave(piece) => Message::DontHave(index(piece)),
            Say::Port(port) => Message::Port(port),
        };
        self.say(link, &message);
    }
}

fn pick<T>(list: &mut Vec<T>, n: u8) -> Option<T> {
    (!list.is_empty()).then(|| list.remove(usize::from(n) % list.len()))
}
