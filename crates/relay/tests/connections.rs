//! Which links are opened and kept; how addresses travel.
#![allow(clippy::unwrap_used)]

mod bed;

use std::time::Duration;

use bed::{Bed, START, money};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use dunlin_peer::{Host, NetAddr};
use dunlin_relay::{AddKind, Command, Config, Event, Kind, Message, PeerAddr, PeerInfo, services};

const SECOND: Duration = Duration::from_secs(1);

fn links(bed: &mut Bed, member: usize) -> usize {
    bed.members[member].events.clear();
    bed.command(member, Command::Peers { ticket: 1 });
    let count = bed.members[member].events.iter().find_map(|event| match event {
        Event::Peers { peers, .. } => Some(peers.iter().filter(|peer| peer.ready).count()),
        _ => None,
    });
    count.unwrap()
}

#[test]
fn a_kept_peer_is_dialled_until_it_is_there_and_again_when_it_is_lost() {
    let mut bed = Bed::new();
    let (a, b) = (bed.member_with(|config| config.max_outbound = 0), bed.member());
    bed.kill(b);
    bed.join(a, b);
    bed.run(20 * SECOND);
    assert_eq!(links(&mut bed, a), 0);
    bed.frozen.clear();
    bed.run(40 * SECOND);
    assert_eq!(links(&mut bed, a), 1);
    bed.kill(b);
    bed.run(SECOND);
    assert_eq!(links(&mut bed, a), 0);
    let addr = bed.members[b].addr;
    bed.command(a, Command::AddPeer(addr, AddKind::Remove));
    bed.frozen.clear();
    bed.run(100 * SECOND);
    assert_eq!(links(&mut bed, a), 0, "it is no longer kept");
}

#[test]
fn dialling_oneself_is_noticed() {
    let mut bed = Bed::new();
    let a = bed.member();
    let addr = bed.members[a].addr;
    bed.command(a, Command::AddPeer(addr, AddKind::Onetry));
    bed.run(5 * SECOND);
    assert_eq!(links(&mut bed, a), 0);
}

#[test]
fn inbound_links_are_limited_and_the_worst_makes_room() {
    let mut bed = Bed::new();
    let a = bed.member_with(|config| config.max_inbound = 24);
    let hands: Vec<usize> = (0..60).map(|_| bed.hand(a)).collect();
    bed.run(SECOND);
    let open = hands.iter().filter(|hand| !bed.hands[**hand].closed).count();
    assert_eq!(open, 24);
    assert_eq!(links(&mut bed, a), 24);
}

#[test]
fn addresses_are_heard_and_dialled() {
    // Everyone is past the initial download, knows its own address, and only one of them knows the others.
    let base = money::chain_of(3, START - 60, &[]);
    let mut bed = Bed::new();
    let all: Vec<usize> = (0..6).map(|_| bed.member()).collect();
    for n in &all {
        bed.preload(*n, &base);
    }
    for n in 1..6 {
        bed.join(all[n], all[0]);
    }
    bed.run(3600 * SECOND);
    // Whoever dialled the first one heard of the others from it, and dialled some of them.
    let outbound: usize = (1..6).map(|n| links(&mut bed, n)).sum();
    assert!(outbound > 5 + 4, "{outbound} links");
}

#[test]
fn told_addresses_are_metered_and_passed_on() {
    let base = money::chain_of(3, START - 60, &[]);
    let mut bed = Bed::new();
    let a = bed.member();
    bed.preload(a, &base);
    let (teller, listener) = (bed.hand(a), bed.hand(a));
    bed.say(listener, Message::GetAddr);
    bed.run(SECOND);
    let address = |n: u8| PeerAddr {
        time: START as u32,
        services: services::NETWORK | services::WITNESS,
        host: Host::Ip([90, n, 1, 1].into()),
        port: 8333,
    };
    bed.heard(listener);
    bed.say(teller, Message::AddrV2(vec![address(1)]));
    bed.run(120 * SECOND);
    let told = bed
        .heard(listener)
        .into_iter()
        .any(|msg| matches!(msg, Message::AddrV2(e) if e.contains(&address(1))));
    assert!(told, "a fresh address is passed on");
    // A thousand at once: nearly all are dropped.
    bed.say(teller, Message::AddrV2((0..200).map(address).collect()));
    bed.run(SECOND);
    bed.members[a].events.clear();
    bed.command(a, Command::Peers { ticket: 2 });
    let Some(Event::Peers { peers, .. }) = bed.members[a].events.last() else {
        panic!("peers")
    };
    let limited: u64 = peers.iter().map(|peer| peer.addr_rate_limited).sum();
    assert!(limited > 150, "{limited}");
}

fn peers(bed: &mut Bed, member: usize) -> Vec<PeerInfo> {
    bed.members[member].events.clear();
    bed.command(member, Command::Peers { ticket: 1 });
    let peers = bed.members[member].events.iter().find_map(|event| match event {
        Event::Peers { peers, .. } => Some(peers.clone()),
        _ => None,
    });
    peers.unwrap()
}

fn book(bed: &mut Bed, member: usize) -> (usize, Vec<NetAddr>) {
    bed.members[member].events.clear();
    bed.command(member, Command::Addresses { ticket: 1 });
    let found = bed.members[member].events.iter().find_map(|event| match event {
        Event::Addresses { book, anchors, .. } => Some((book.tried_len(), anchors.clone())),
        _ => None,
    });
    found.unwrap()
}

/// One that knows sixteen others, all past the initial download.
fn knows_others() -> (Bed, usize) {
    let base = money::chain_of(3, START - 60, &[]);
    let mut bed = Bed::new();
    for _ in 0..16 {
        let n = bed.member_with(|config| config.max_outbound = 0);
        bed.preload(n, &base);
    }
    let one = bed.member_with(|config| config.max_outbound = 4);
    bed.preload(one, &base);
    let addrs = (0..16).map(|n| bed.members[n].addr).collect();
    bed.command(one, Command::Seed(addrs));
    (bed, one)
}

#[test]
fn two_links_relay_blocks_only_and_are_dialled_first_after_a_restart() {
    let (mut bed, one) = knows_others();
    bed.run(30 * SECOND);
    let all = peers(&mut bed, one);
    let of = |kind| all.iter().filter(|peer| peer.kind == kind).count();
    assert_eq!((of(Kind::Automatic), of(Kind::BlockRelay)), (4, 2));
    let (_, anchors) = book(&mut bed, one);
    assert_eq!(anchors.len(), 2);
    for n in 0..16 {
        let addr = bed.members[n].addr;
        for peer in peers(&mut bed, n) {
            assert_eq!(peer.relay_tx, !anchors.contains(&addr));
            assert_eq!(peer.addr_relay, !anchors.contains(&addr));
        }
    }
    // Blocks do travel on them.
    let tip = bed.mine(one).hash;
    bed.run(10 * SECOND);
    let addrs: Vec<NetAddr> = bed.members.iter().map(|member| member.addr).collect();
    let has = |anchor: &NetAddr| {
        let n = addrs.iter().position(|addr| addr == anchor).unwrap();
        bed.members[n].tip() == tip
    };
    assert!(anchors.iter().all(has));

    let again = bed.member_with(|config| config.anchors = anchors.clone());
    bed.run(5 * SECOND);
    let first: Vec<_> = peers(&mut bed, again)
        .iter()
        .map(|peer| (peer.kind, peer.addr))
        .collect();
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(
        first
            .iter()
            .all(|(kind, addr)| *kind == Kind::BlockRelay && anchors.contains(addr))
    );
}

#[test]
fn feelers_find_out_who_answers_and_links_beyond_the_usual_number_go_again() {
    let (mut bed, one) = knows_others();
    let mut most = 0;
    for _ in 0..240 {
        bed.run(30 * SECOND);
        let all = peers(&mut bed, one);
        let of = |kind| all.iter().filter(|peer| peer.kind == kind).count();
        assert!(of(Kind::Automatic) <= 5 && of(Kind::BlockRelay) <= 3 && of(Kind::Feeler) <= 1);
        most = most.max(all.len());
    }
    let (tried, _) = book(&mut bed, one);
    assert!(tried >= 12, "{tried} of 16 were tried");
    // Nobody mined for two hours: others were asked whether they know better.
    assert!(most > 6, "{most} links");
}

#[test]
fn whoever_announces_transactions_on_a_link_for_blocks_only_is_closed() {
    let (mut bed, one) = knows_others();
    bed.run(30 * SECOND);
    let (_, anchors) = book(&mut bed, one);
    let n = bed.members.iter().position(|member| member.addr == anchors[0]).unwrap();
    let link = peers(&mut bed, n)[0].link;
    let item = Inventory::WTx(bitcoin::Wtxid::from_byte_array([3; 32]));
    bed.say_as(n, link, Message::Inv(vec![item]));
    bed.run(SECOND);
    assert!(peers(&mut bed, n).is_empty());
}

#[test]
fn seeds_are_asked_a_few_at_a_time_until_there_are_peers() {
    let base = money::chain_of(3, START - 60, &[]);
    let mut bed = Bed::new();
    for _ in 0..4 {
        let n = bed.member_with(|config| config.max_outbound = 0);
        bed.preload(n, &base);
    }
    let seeds = |config: &mut Config| config.dns_seeds = (0..7).map(|n| format!("seed{n}.invalid")).collect();
    let lonely = bed.member_with(seeds);
    bed.run(60 * SECOND);
    assert_eq!(
        bed.resolved.len(),
        7,
        "nobody answers, so all are asked: {:?}",
        bed.resolved
    );
    assert!(bed.resolved.iter().all(|name| name.starts_with("x9.seed")));
    assert_eq!(links(&mut bed, lonely), 0);

    bed.resolved.clear();
    let addrs: Vec<_> = bed.members[..4].iter().map(|member| member.addr).collect();
    for n in 0..7 {
        bed.names.insert(format!("x9.seed{n}.invalid"), addrs.clone());
    }
    let one = bed.member_with(seeds);
    bed.run(60 * SECOND);
    assert_eq!(bed.resolved.len(), 3);
    assert!(links(&mut bed, one) >= 4);
}

#[test]
fn addresses_of_hidden_networks_travel_and_are_kept_where_they_can_be_reached() {
    let base = money::chain_of(3, START - 60, &[]);
    let onion: NetAddr = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333"
        .parse()
        .unwrap();
    let mut bed = Bed::new();
    let with_tor = bed.member_with(|config| {
        (config.max_outbound, config.max_block_relay) = (0, 0);
        config.reachable = config.reachable.with(dunlin_peer::NetClass::Onion);
        config.external = vec![config.external[0], onion];
    });
    let without = bed.member_with(|config| (config.max_outbound, config.max_block_relay) = (0, 0));
    let known: NetAddr = "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p:0"
        .parse()
        .unwrap();
    let other = NetAddr {
        host: Host::TorV3([7; 32]),
        port: 8333,
    };
    for node in [with_tor, without] {
        bed.preload(node, &base);
        let (teller, listener) = (bed.hand(node), bed.hand(node));
        bed.say(listener, Message::GetAddr);
        bed.run(SECOND);
        bed.heard(listener);
        let entry = |addr: NetAddr| PeerAddr {
            time: START as u32,
            services: services::NETWORK | services::WITNESS,
            host: addr.host,
            port: addr.port,
        };
        bed.say(teller, Message::AddrV2(vec![entry(other)]));
        bed.run(60 * SECOND);
        bed.say(teller, Message::AddrV2(vec![entry(known)]));
        bed.run(120 * SECOND);
        let heard: Vec<NetAddr> = bed
            .heard(listener)
            .into_iter()
            .filter_map(|msg| match msg {
                Message::AddrV2(entries) => Some(entries),
                _ => None,
            })
            .flatten()
            .map(|entry| entry.addr())
            .collect();
        assert!(heard.contains(&other) && heard.contains(&known), "passed on: {heard:?}");
        assert!(
            !heard.contains(&onion),
            "our onion address is not told over the internet"
        );
    }
    let knows = |bed: &Bed, node: usize, addr: &NetAddr| bed.members[node].relay.addresses().entry(addr).is_some();
    assert!(knows(&bed, with_tor, &other) && !knows(&bed, without, &other));
    assert!(!knows(&bed, with_tor, &known), "nobody here reaches I2P");
}

#[test]
fn fixed_seeds_are_used_when_nothing_else_tells_of_peers() {
    let mut bed = Bed::new();
    let ours = bed.member_with(|config| {
        config.dns_seeds = vec!["seed.invalid".to_owned()];
        config.fixed_seeds = vec![
            "21.0.7.1:8333".parse().unwrap(),
            NetAddr {
                host: Host::TorV3([7; 32]),
                port: 8333,
            },
        ];
    });
    bed.run(50 * SECOND);
    assert_eq!(bed.members[ours].relay.addresses().len(), 0, "DNS comes first");
    bed.run(30 * SECOND);
    let book = bed.members[ours].relay.addresses();
    let known: Vec<NetAddr> = book.iter().map(|entry| entry.addr).collect();
    assert_eq!(known, ["21.0.7.1:8333".parse().unwrap()], "onions cannot be reached");
}
