//! Private broadcast: own transactions go to strangers over links of their own, and come back.
#![allow(clippy::unwrap_used)]

mod bed;

use std::time::Duration;

use bed::{Bed, START, money};
use dunlin_peer::NetClass;
use dunlin_relay::{Command, Event, Kind};

const SECOND: Duration = Duration::from_secs(1);

fn holds(bed: &Bed, member: usize, txid: &bitcoin::Txid) -> bool {
    bed.members[member].engine.pool.read().unwrap().contains(txid)
}

#[test]
fn own_transactions_go_to_strangers_only_and_come_back_from_them() {
    let base = money::chain_of(110, START - 60, &[]);
    let mut bed = Bed::new();
    let ours = bed.member_with(|config| {
        (config.max_outbound, config.max_block_relay) = (0, 0);
        config.private_broadcast = [NetClass::Ipv4].into_iter().collect();
    });
    let ordinary = bed.member_with(|config| (config.max_outbound, config.max_block_relay) = (0, 0));
    let strangers: Vec<usize> = (0..4)
        .map(|_| bed.member_with(|config| (config.max_outbound, config.max_block_relay) = (0, 0)))
        .collect();
    for n in [ours, ordinary].iter().chain(&strangers) {
        bed.preload(*n, &base);
    }
    bed.join(ours, ordinary);
    bed.run(5 * SECOND);
    let addrs = strangers.iter().map(|n| bed.members[*n].addr).collect();
    bed.command(ours, Command::Seed(addrs));
    let (from, value) = money::reward(&base[0]);
    let tx = std::sync::Arc::new(money::Wallet::new(1).spend(from, value, 1, money::FEE));
    let txid = tx.compute_txid();
    bed.command(ours, Command::SubmitTx { ticket: 9, tx });
    let answered = |bed: &Bed| {
        let events = &bed.members[ours].events;
        events.iter().any(|event| {
            matches!(
                event,
                Event::TxSubmitted {
                    ticket: 9,
                    result: Ok(_)
                }
            )
        })
    };
    assert!(answered(&bed));
    bed.run(40 * SECOND);
    let told = strangers.iter().filter(|n| holds(&bed, **n, &txid)).count();
    assert_eq!(told, 3);
    assert!(!holds(&bed, ours, &txid) && !holds(&bed, ordinary, &txid));
    // What strangers saw of us says nothing, and the links are gone.
    for n in strangers.iter().filter(|n| holds(&bed, **n, &txid)) {
        let seen = bed.members[*n].events.iter().find_map(|event| match event {
            Event::PeerReady { user_agent, .. } => Some(user_agent.clone()),
            _ => None,
        });
        assert_eq!(seen.as_deref(), Some("/pynode:0.0.1/"));
        assert!(
            bed.members[*n]
                .events
                .iter()
                .any(|event| matches!(event, Event::PeerGone { .. }))
        );
    }
    bed.members[ours].events.clear();
    bed.command(ours, Command::Peers { ticket: 1 });
    let Some(Event::Peers { peers, .. }) = bed.members[ours].events.last() else {
        panic!("peers")
    };
    assert!(peers.iter().all(|peer| peer.kind == Kind::Manual) && peers.len() == 1);
    // Strangers announce what comes to them from then on; what does not come back is told again, to the fourth in the end.
    for n in &strangers {
        bed.join(*n, ordinary);
    }
    assert!(
        bed.run_until(4 * 3600 * SECOND, |bed| holds(bed, ours, &txid)),
        "it comes back"
    );
    assert!(holds(&bed, ordinary, &txid) && strangers.iter().all(|n| holds(&bed, *n, &txid)));
}

#[test]
fn what_the_pool_would_not_take_is_not_told() {
    let base = money::chain_of(110, START - 60, &[]);
    let mut bed = Bed::new();
    let ours = bed.member_with(|config| {
        (config.max_outbound, config.max_block_relay) = (0, 0);
        config.private_broadcast = [NetClass::Ipv4].into_iter().collect();
    });
    let stranger = bed.member();
    bed.preload(ours, &base);
    bed.preload(stranger, &base);
    let addr = bed.members[stranger].addr;
    bed.command(ours, Command::Seed(vec![addr]));
    let (from, value) = money::reward(&base[109]);
    let tx = std::sync::Arc::new(money::Wallet::new(1).spend(from, value, 1, money::FEE));
    bed.command(ours, Command::SubmitTx { ticket: 9, tx });
    bed.run(60 * SECOND);
    let refused = bed.members[ours].events.iter().any(|event| {
        matches!(
            event,
            Event::TxSubmitted {
                ticket: 9,
                result: Err(_)
            }
        )
    });
    assert!(refused, "the coin is too young");
    assert_eq!(bed.members[stranger].pool_len(), 0);
    assert!(bed.members[stranger].events.is_empty(), "nobody was dialled");
}
