//! Who is connected to whom.

use std::sync::Arc;
use std::time::Duration;

use dunlin_peer::DisconnectCause;
use dunlin_torrent::Metainfo;
use dunlin_torrent::command::Command;
use dunlin_torrent::status::PeerStatus;

use crate::bed::{Bed, Torrent};

fn is_ours(cause: &DisconnectCause, text: &str) -> bool {
    matches!(cause, DisconnectCause::Ours(reason) if reason.text.contains(text))
}

#[test]
fn two_that_dial_each_other_keep_one_link() {
    let torrent = Torrent::new(8 << 20, 64 << 10, 21);
    let mut bed = Bed::new();
    let (a, b) = (bed.node(100 << 10), bed.node(100 << 10));
    bed.place(a, &torrent);
    let (addr_a, addr_b) = (bed.nodes[a].addr, bed.nodes[b].addr);
    bed.add(a, torrent.source(), |add| add.peers.push(addr_b));
    bed.add(b, torrent.source(), |add| add.peers.push(addr_a));
    bed.run_for(Duration::from_secs(20));
    assert_eq!((bed.links_of(a), bed.links_of(b)), (1, 1));
    bed.run_until_all_complete(&[b], Duration::from_secs(300));
    let twins = bed.nodes[a]
        .ended
        .iter()
        .filter(|cause| is_ours(cause, "already connected"))
        .count();
    assert!(twins <= 1, "they do not go on dialling each other");
}

#[test]
fn nobody_talks_to_itself() {
    let torrent = Torrent::new(1 << 20, 64 << 10, 22);
    let mut bed = Bed::new();
    let node = bed.node(1 << 20);
    let own = bed.nodes[node].addr;
    bed.add(node, torrent.source(), |add| add.peers.push(own));
    bed.run_for(Duration::from_secs(120));
    let selves = bed.nodes[node]
        .ended
        .iter()
        .filter(|cause| is_ours(cause, "myself"))
        .count();
    assert!(
        (1..=2).contains(&selves),
        "once, and never again: {:?}",
        bed.nodes[node].ended
    );
    assert_eq!(bed.links_of(node), 0);
}

#[test]
fn the_number_of_links_is_bounded() {
    let torrent = Torrent::new(1 << 20, 64 << 10, 23);
    let mut bed = Bed::new();
    let hub = bed.node(1 << 20);
    bed.reconfigure(hub, |config| config.limits.links_per_torrent = 3);
    bed.add(hub, torrent.source(), |_| {});
    let addr = bed.nodes[hub].addr;
    for _ in 0..8 {
        let node = bed.node(1 << 20);
        bed.add(node, torrent.source(), |add| add.peers.push(addr));
    }
    bed.run_for(Duration::from_secs(30));
    assert_eq!(bed.status(hub).peers.len(), 3);
}

#[test]
fn peers_are_described() {
    let torrent = Torrent::new(8 << 20, 64 << 10, 24);
    let mut bed = Bed::new();
    let seed = bed.seed(1 << 20, &torrent);
    let leecher = bed.leech(1 << 20, &torrent);
    bed.run_until(Duration::from_secs(20), |bed| bed.status(leecher).pieces_done >= 30);
    let status = bed.status(leecher);
    let [peer]: &[PeerStatus] = &status.peers[..] else {
        panic!("one peer")
    };
    assert_eq!(peer.client, format!("Dunlin {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(
        (peer.progress_milli, peer.flags.seed, peer.flags.interested),
        (1000, true, true)
    );
    assert!(!peer.flags.choked && peer.requests > 0);
    assert!(
        (500_000..2_000_000).contains(&peer.download_rate),
        "{}",
        peer.download_rate
    );
    assert!(
        status.eta.is_some_and(|secs| (1..30).contains(&secs)),
        "{:?}",
        status.eta
    );
    assert_eq!(status.availability, vec![1; torrent.meta.piece_count() as usize]);
    assert_eq!(status.copies_milli, 1000);
    let serving = bed.status(seed);
    assert!(serving.peers[0].flags.peer_interested && !serving.peers[0].flags.peer_choked);
    assert!(serving.uploaded > 0);
}

#[test]
fn removing_a_torrent_frees_its_place_in_the_limits() {
    let torrent = Torrent::new(1 << 20, 64 << 10, 25);
    let other = Torrent::new(1 << 20, 64 << 10, 26);
    let mut bed = Bed::new();
    let seed = bed.seed(64 << 10, &torrent);
    bed.place(seed, &other);
    let leecher = bed.node(1 << 20);
    bed.reconfigure(leecher, |config| config.limits.links = 1);
    bed.add(leecher, torrent.source(), |_| {});
    bed.run_for(Duration::from_secs(5));
    assert_eq!(bed.links_of(leecher), 1);
    let info_hash = torrent.info_hash();
    bed.command(
        leecher,
        Command::Remove {
            info_hash,
            delete_files: false,
        },
    );
    bed.run_for(Duration::from_secs(1));
    bed.command(
        seed,
        Command::Remove {
            info_hash,
            delete_files: false,
        },
    );
    bed.run_for(Duration::from_secs(1));
    bed.add(seed, other.source(), |_| {});
    bed.run_for(Duration::from_secs(1));
    let addr = bed.nodes[seed].addr;
    bed.add(leecher, other.source(), |add| add.peers.push(addr));
    bed.run_until_all_complete(&[leecher], Duration::from_secs(120));
}

/// A seed and four that know nobody but the seed, without a tracker; how many links each has after two minutes.
fn links_after_exchange(change: impl Fn(&mut Metainfo), pex: bool) -> Vec<usize> {
    let mut torrent = Torrent::new(64 << 20, 64 << 10, 26);
    let meta = Arc::make_mut(&mut torrent.meta);
    meta.trackers.clear();
    change(meta);
    let mut bed = Bed::new();
    let seed = bed.seed(100 << 10, &torrent);
    let addr = bed.nodes[seed].addr;
    let others: Vec<_> = (0..4).map(|_| bed.node(100 << 10)).collect();
    for &node in &others {
        bed.reconfigure(node, |config| config.pex = pex);
        bed.add(node, torrent.source(), |add| add.peers.push(addr));
    }
    bed.run_for(Duration::from_secs(120));
    others.iter().map(|&node| bed.links_of(node)).collect()
}

#[test]
fn peers_tell_each_other_of_peers_but_not_in_private_torrents() {
    assert_eq!(links_after_exchange(|_| {}, true), [4; 4]);
    assert_eq!(links_after_exchange(|meta| meta.private = true, true), [1; 4]);
    assert_eq!(links_after_exchange(|_| {}, false), [1; 4]);
}
