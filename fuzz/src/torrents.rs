//! The torrents of the session target, and what a disk and a user say about them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use bytes::Bytes;
use dunlin_torrent::bencode::Item;
use dunlin_torrent::disk::{self, DiskError, DiskErrorKind, Opened, Verdict};
use dunlin_torrent::session::{AddTorrent, Command, Source};
use dunlin_torrent::wire::{Block, Handshake, Message, Reserved};
use dunlin_torrent::{Bitfield, InfoHash, Magnet, Metainfo, PeerId};

const PIECE: u32 = 48 * 1024;

/// What the user asks; numbers name torrents and addresses.
#[derive(Arbitrary, Debug)]
pub enum Ask {
    Add {
        torrent: u8,
        paused: bool,
        seed_only: bool,
        sequential: bool,
        peers: Vec<u8>,
    },
    Remove {
        torrent: u8,
        delete_files: bool,
    },
    Pause(u8),
    Resume(u8),
    Recheck(u8),
    AddPeers {
        torrent: u8,
        peers: Vec<u8>,
    },
    Query,
    Listening(Option<u16>),
    Stop,
}

/// The torrents' bytes, each a part of them from the start: no two blocks alike.
static CONTENT: LazyLock<Bytes> = LazyLock::new(|| {
    (0..12 * PIECE)
        .map(|at| (at / 7 + at / 16_384 * 31) as u8)
        .collect::<Vec<_>>()
        .into()
});

pub fn torrent(name: &str, len: u32, tracker: Option<&str>) -> Arc<Metainfo> {
    let hashes: Vec<u8> = CONTENT[..len as usize]
        .chunks(PIECE as usize)
        .flat_map(|piece| InfoHash::of_info(piece).0)
        .collect();
    let info = Item::dict()
        .with("name", name)
        .with("length", len)
        .with("piece length", PIECE)
        .with("pieces", hashes);
    let mut root = Item::dict().with("info", info);
    if let Some(url) = tracker {
        root.insert("announce", url);
    }
    Arc::new(Metainfo::parse(&root.encode()).expect("a torrent of our own"))
}

/// Two torrents with their metainfo and one that starts from a magnet link.
pub static TORRENTS: LazyLock<[Arc<Metainfo>; 3]> = LazyLock::new(|| {
    [
        torrent("small", 3 * PIECE + 5, Some("http://t.example/announce")),
        torrent("one", 20_000, None),
        torrent("magnet", 12 * PIECE, Some("udp://t.example:80")),
    ]
});

pub fn addr(n: u8) -> SocketAddr {
    ([10, 0, n / 16, n % 16 + 1], 6881).into()
}

pub fn source(n: u8) -> Source {
    let metainfo = &TORRENTS[usize::from(n) % 3];
    if n % 3 == 2 {
        let mut magnet = Magnet::new(metainfo.info_hash);
        magnet.trackers = metainfo.trackers.concat();
        Source::Magnet(magnet)
    } else {
        Source::Metainfo(metainfo.clone())
    }
}

pub fn shake(torrent: u8, peer: u8, reserved: [u8; 8]) -> Message {
    let info_hash = if torrent == 255 {
        InfoHash([0; 20])
    } else {
        TORRENTS[usize::from(torrent) % 3].info_hash
    };
    Message::Handshake(Handshake {
        reserved: Reserved(reserved),
        info_hash,
        peer_id: PeerId::new(b"-FZ0001-", [peer; 12]),
    })
}

/// A block's bytes; none for a block that the torrent does not have.
pub fn bytes_of(metainfo: &Metainfo, block: Block) -> Bytes {
    let start = metainfo.piece_offset(block.piece) as usize + block.begin as usize;
    let end = (start + block.len as usize).min(metainfo.total_length as usize);
    if start < end {
        CONTENT.slice(start..end)
    } else {
        Bytes::new()
    }
}

/// What the disk says: right things for even numbers, trouble for most odd ones.
pub fn disk_answer(job: disk::Job, how: u8) -> disk::Done {
    use DiskErrorKind::{Changed, Full, Misuse, NoHandles, Obstructed, Other, Permission, TooLarge};
    let kinds = [
        Full, Permission, TooLarge, Changed, Obstructed, NoHandles, Misuse, Other,
    ];
    let error = DiskError {
        kind: kinds[usize::from(how / 2) % kinds.len()],
        path: PathBuf::from("/nowhere/file"),
        text: "trouble".into(),
    };
    let bad = how % 2 == 1;
    match job {
        disk::Job::Open { metainfo, .. } => {
            let count = metainfo.piece_count();
            let opened = match how / 2 % 3 {
                0 => Opened {
                    have: Bitfield::new(count),
                    unknown: Vec::new(),
                },
                1 => Opened {
                    have: Bitfield::full(count),
                    unknown: Vec::new(),
                },
                _ => Opened {
                    have: Bitfield::new(count),
                    unknown: vec![0..count.div_ceil(2), count.div_ceil(2)..count],
                },
            };
            let result = if bad { Err(error) } else { Ok(opened) };
            disk::Done::Opened {
                info_hash: metainfo.info_hash,
                result,
            }
        }
        disk::Job::Check { info_hash, pieces } => {
            let good = pieces
                .clone()
                .filter(|piece| (piece + u32::from(how)) % 3 != 0)
                .collect();
            let result = if bad { Err(error) } else { Ok(good) };
            disk::Done::Checked {
                info_hash,
                pieces,
                result,
            }
        }
        disk::Job::WritePiece {
            info_hash,
            piece,
            blocks,
        } => {
            let metainfo = TORRENTS
                .iter()
                .find(|torrent| torrent.info_hash == info_hash)
                .expect("one of ours");
            let len: usize = blocks.iter().map(Bytes::len).sum();
            assert_eq!(
                len,
                metainfo.piece_len(piece) as usize,
                "a piece handed to the disk is whole"
            );
            let verdict = if metainfo.piece_hash(piece) == Some(&InfoHash::of_info(&blocks.concat()).0) {
                Verdict::Verified
            } else {
                let block_hashes = blocks.iter().map(|block| InfoHash::of_info(block).0).collect();
                Verdict::HashMismatch { block_hashes }
            };
            let result = if bad { Err(error) } else { Ok(verdict) };
            disk::Done::Written {
                info_hash,
                piece,
                result,
            }
        }
        disk::Job::ReadBlock {
            info_hash,
            block,
            ticket,
        } => {
            let metainfo = TORRENTS
                .iter()
                .find(|torrent| torrent.info_hash == info_hash)
                .expect("one of ours");
            assert!(metainfo.contains(block), "read {block:?}");
            let result = if bad { Err(error) } else { Ok(bytes_of(metainfo, block)) };
            disk::Done::Read {
                info_hash,
                block,
                ticket,
                result,
            }
        }
        disk::Job::Flush { info_hash } => disk::Done::Flushed {
            info_hash,
            result: if bad { Err(error) } else { Ok(()) },
        },
        disk::Job::SaveResume { resume, .. } => disk::Done::ResumeSaved {
            info_hash: resume.info_hash,
            result: if bad { Err(error) } else { Ok(()) },
        },
        disk::Job::Close { info_hash, .. } => disk::Done::Closed {
            info_hash,
            result: if bad { Err(error) } else { Ok(()) },
        },
    }
}

pub fn command(ask: Ask) -> Command {
    let hash = |n: u8| TORRENTS[usize::from(n) % 3].info_hash;
    match ask {
        Ask::Add {
            torrent,
            paused,
            seed_only,
            sequential,
            peers,
        } => {
            let mut add = AddTorrent::new(source(torrent), "/nowhere".into());
            add.paused = paused;
            add.seed_only = seed_only;
            add.sequential = sequential;
            add.peers = peers.into_iter().map(addr).collect();
            Command::Add(Box::new(add))
        }
        Ask::Remove { torrent, delete_files } => Command::Remove {
            info_hash: hash(torrent),
            delete_files,
        },
        Ask::Pause(torrent) => Command::Pause {
            info_hash: hash(torrent),
        },
        Ask::Resume(torrent) => Command::Resume {
            info_hash: hash(torrent),
        },
        Ask::Recheck(torrent) => Command::Recheck {
            info_hash: hash(torrent),
        },
        Ask::AddPeers { torrent, peers } => Command::AddPeers {
            info_hash: hash(torrent),
            peers: peers.into_iter().map(addr).collect(),
        },
        Ask::Query => Command::Query {
            info_hash: None,
            ticket: 1,
        },
        Ask::Listening(port) => Command::Listening { port },
        Ask::Stop => Command::Stop,
    }
}
