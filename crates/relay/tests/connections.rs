//! Which links are opened and kept; how addresses travel.
#![allow(clippy::unwrap_used)]

mod bed;

use std::time::Duration;

use bed::{Bed, START, money};
use dunlin_relay::{AddKind, Command, Event, Host, Message, PeerAddr, services};

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
