//! Readers on other threads while blocks are connected and reorganised.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bitcoin::OutPoint;
use dunlin_chain::{Chain, Network, Params};
use regtest::*;

#[test]
fn a_reader_always_sees_the_coins_of_one_state() {
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    let trunk = blocks(genesis(), 1, 101);
    for one in &trunk {
        chain.accept_block(NOW, Arc::clone(&one.block)).unwrap();
    }
    // One amount wanders from output to output: in every state exactly one of them holds it.
    let mut at = trunk[100].place;
    let mut coin = trunk[0].reward();
    let mut wander = vec![coin];
    let mut made = Vec::new();
    for _ in 0..150 {
        let tx = spend(&[coin], &[(1, open_script())]);
        coin = OutPoint {
            txid: tx.compute_txid(),
            vout: 0,
        };
        wander.push(coin);
        made.push(block(at, 1, vec![tx], 0));
        at = made.last().unwrap().place;
    }
    // A branch that takes the last fifty steps back at once.
    made.extend(blocks(made[99].place, 2, 51));

    let done = AtomicBool::new(false);
    let reads = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let view = chain.view();
                let (done, reads, wander) = (&done, &reads, &wander);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let (tip, coins) = view.coins(wander).unwrap();
                        let held: Vec<_> = (0..wander.len()).filter(|n| coins[*n].is_some()).collect();
                        let step = usize::try_from(tip.height).unwrap() - 101;
                        // The branch that takes fifty steps back shows itself at once, with more work than before.
                        let want = if tip.height <= 251 { step } else { 100 };
                        assert_eq!(held, [want], "at height {}", tip.height);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for (index, one) in made.iter().enumerate() {
            chain.accept_block(NOW, Arc::clone(&one.block)).unwrap();
            // However busy the machine is, the readers keep pace on average.
            while reads.load(Ordering::Relaxed) < index && readers.iter().all(|reader| !reader.is_finished()) {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    let (tip, coins) = chain.view().coins(&wander).unwrap();
    assert_eq!(tip.hash, made.last().unwrap().place.hash);
    assert!(coins[100].is_some());
}
