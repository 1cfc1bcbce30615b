#![allow(clippy::unwrap_used)]

use bitcoin::hashes::Hash;
use dunlin_chain::build;

use super::*;

fn tx(n: u8) -> Arc<Transaction> {
    let mut tx = dunlin_chain::Params::new(dunlin_chain::Network::Regtest).genesis.txdata[0].clone();
    tx.input[0].previous_output.txid = bitcoin::Txid::from_byte_array([n; 32]);
    tx.input[0].previous_output.vout = 0;
    tx.lock_time = bitcoin::absolute::LockTime::from_consensus(n.into());
    Arc::new(tx)
}

/// A block of the coinbase and nine others, without witnesses.
fn block() -> Arc<ParsedBlock> {
    let mut block = dunlin_chain::Params::new(dunlin_chain::Network::Regtest).genesis;
    block.txdata.extend((1..10).map(|n| (*tx(n)).clone()));
    build::commit_transactions(&mut block);
    ParsedBlock::from_block(block)
}

fn at_hand(txs: &[Arc<Transaction>]) -> impl Iterator<Item = (Wtxid, &Arc<Transaction>)> {
    txs.iter().map(|tx| (tx.compute_wtxid(), tx))
}

#[test]
fn a_block_is_rebuilt_from_what_is_at_hand_and_the_rest() {
    let block = block();
    let compact = CompactBlock::of(&block, 5).unwrap();
    assert_eq!((compact.short_ids.len(), compact.prefilled.len()), (9, 1));
    let all: Vec<_> = (1..30).map(tx).collect();
    let whole = Partial::new(&compact, at_hand(&all)).unwrap();
    assert_eq!(whole.missing(), Vec::<u16>::new());
    assert_eq!(whole.fill(Vec::new(), true).unwrap().raw, block.raw);

    let some: Vec<_> = [9, 3, 1, 25].map(tx).to_vec();
    let part = Partial::new(&compact, at_hand(&some)).unwrap();
    assert_eq!(part.missing(), [2, 4, 5, 6, 7, 8]);
    let rest: Vec<_> = [2, 4, 5, 6, 7, 8].map(tx).to_vec();
    assert_eq!(part.clone().fill(rest.clone(), true).unwrap().raw, block.raw);
    // Too few, too many, and not those asked for.
    assert_eq!(part.clone().fill(rest[1..].to_vec(), true).unwrap_err(), Unfit::Invalid);
    let more = [rest.clone(), vec![tx(1)]].concat();
    assert_eq!(part.clone().fill(more, true).unwrap_err(), Unfit::Invalid);
    let mut other = rest;
    other.swap(0, 1);
    assert_eq!(part.fill(other, true).unwrap_err(), Unfit::Collision);
}

#[test]
fn equal_short_ids_and_wrong_places_are_refused() {
    let mut compact = CompactBlock::of(&block(), 5).unwrap();
    compact.short_ids[3] = compact.short_ids[7];
    assert_eq!(Partial::new(&compact, at_hand(&[])).unwrap_err(), Unfit::Collision);
    let mut compact = CompactBlock::of(&block(), 5).unwrap();
    compact.prefilled[0].0 = 10;
    assert_eq!(Partial::new(&compact, at_hand(&[])).unwrap_err(), Unfit::Invalid);
    let nothing = CompactBlock {
        short_ids: Vec::new(),
        prefilled: Vec::new(),
        ..compact
    };
    assert_eq!(Partial::new(&nothing, at_hand(&[])).unwrap_err(), Unfit::Invalid);
}

#[test]
fn a_transaction_with_the_short_id_of_another_leads_to_the_whole_block() {
    let mut compact = CompactBlock::of(&block(), 5).unwrap();
    // The sender's transaction 4 has, as it seems, the short id of one that we have.
    compact.short_ids[3] = compact.ids().of(&tx(77).compute_wtxid());
    let all: Vec<_> = (1..80).map(tx).collect();
    let partial = Partial::new(&compact, at_hand(&all)).unwrap();
    assert_eq!(partial.fill(Vec::new(), true).unwrap_err(), Unfit::Collision);
}
