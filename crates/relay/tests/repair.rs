//! A pruned peer whose coins are damaged fetches the blocks once more that tell what they were: from peers that keep all,
//! whatever others say.
#![allow(clippy::unwrap_used)]

mod bed;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bed::{Bed, START, money};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, OutPoint};
use dunlin_chain::{Chain, ChainConfig, Network, Params, ParsedBlock, Prune};
use dunlin_relay::{Config, Message, services};

const HOUR: Duration = Duration::from_secs(3600);
const BLOCKS: u32 = 450;

fn open(dir: &Path) -> Chain {
    let config = ChainConfig {
        prune: Prune::Manual,
        block_file_bytes: 4000,
        ..ChainConfig::default()
    };
    let params = Params {
        prune_after_height: 100,
        ..Params::new(Network::Regtest)
    };
    Chain::open_dir(params, dir, config).unwrap()
}

/// Changes a byte in every file of coins.
fn damage(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage(&path);
        } else if path.extension().is_some_and(|end| end == "run") {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[60] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

/// A pruned chain whose coins are damaged, if they are to be.
fn pruned(dir: &Path, blocks: &[Arc<ParsedBlock>], damaged: bool) -> Chain {
    let mut chain = open(dir);
    for block in blocks {
        chain.accept_block(START, block.clone()).unwrap();
    }
    chain.prune_to(u32::MAX).unwrap();
    chain.close().unwrap();
    if damaged {
        damage(dir);
    }
    let chain = open(dir);
    assert!(chain.view().prune_height().unwrap() > 100);
    chain
}

fn as_pruned(config: &mut Config) {
    config.services &= !services::NETWORK;
}

#[test]
fn blocks_come_from_who_keeps_them_whatever_others_say() {
    let mut bed = Bed::new();
    let blocks = money::chain_of(BLOCKS, START - 60, &[]);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let patient = bed.member_of(pruned(folders[0].path(), &blocks, true), as_pruned);
    let limited = bed.member_of(pruned(folders[1].path(), &blocks, false), as_pruned);
    let view = bed.members[patient].view();
    // The first mature coin that cannot be read.
    let mut spendable = blocks[..300].iter().map(|block| money::reward(block));
    let (coin, value): (OutPoint, _) = spendable
        .find(|(coin, _)| view.coin(coin).is_err())
        .expect("some coin is damaged");
    let spend = money::Wallet::new(1).spend(coin, value, 1, money::FEE);
    let next = money::next_block(&bed.members[patient], bed.now, vec![spend]);
    let tip = bed.submit(limited, next.clone()).hash;
    bed.submit(patient, next.clone());
    assert_eq!(bed.members[patient].height(), BLOCKS);
    assert!(view.warning().is_some());

    // Nobody, then one who has pruned them too.
    bed.run(HOUR);
    bed.join(patient, limited);
    bed.run(HOUR);
    assert_eq!(view.search().unwrap().height, 0);
    assert!(bed.misbehaviours(patient).is_empty());

    // Somebody who says that it has them all, and sends other transactions below their headers.
    let liar = bed.hand(patient);
    bed.say(liar, Message::Headers(vec![next.header]));
    bed.run(Duration::from_secs(2));
    let asked = bed.heard(liar).into_iter().find_map(|message| match message {
        Message::GetData(items) => Some(items),
        _ => None,
    });
    let Some([Inventory::WitnessBlock(first), ..]) = asked.as_deref() else {
        panic!("{asked:?}");
    };
    assert_eq!(*first, blocks[0].hash);
    let mut false_block: Block = deserialize(&blocks[0].raw).unwrap();
    false_block.txdata = next.txdata.clone();
    bed.say(liar, Message::RawBlock(serialize(&false_block).into()));
    bed.run(Duration::from_secs(2));
    assert!(bed.hands[liar].closed);
    assert_eq!(bed.misbehaviours(patient).len(), 1);
    assert_eq!(view.search().unwrap().height, 0);

    let full = bed.member();
    bed.preload(full, &blocks);
    bed.submit(full, next);
    bed.join(patient, full);
    assert!(bed.run_until(HOUR, |bed| bed.members[patient].tip() == tip));
    assert_eq!((view.search(), view.warning()), (None, None));
    assert_eq!(bed.misbehaviours(patient).len(), 1);
    let coins = |bed: &mut Bed, member: usize| bed.members[member].engine.chain.summarize_coins().unwrap();
    assert_eq!(coins(&mut bed, patient), coins(&mut bed, full));
}
