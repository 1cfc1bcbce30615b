//! A byte that a disk changed on its own, anywhere in the files of an optional index, its tables included: the index is
//! built again, goes on, or says in one line what is wrong; it never gives a wrong answer and never takes the process
//! with it. `DUNLIN_FLIPS` says how many bytes, one at a time.
#![allow(clippy::unwrap_used)]

mod flips;
mod regtest;

use std::collections::HashMap;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use bitcoin::OutPoint;
use dunlin_chain::indexes::{IndexKind, Indexer, Indexes, ScriptHash};
use dunlin_chain::{Chain, Network, Params, StoreError, View};
use flips::{Dice, copy, files, one_line};
use regtest::*;

/// Flips without another wish.
const FLIPS: usize = 60;

/// 130 blocks, the last of which spend and make many outputs.
fn chain() -> Chain {
    let mut chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    let mut made = blocks(genesis(), 1, 105);
    for number in 0..25 {
        let reward = spend(&[made[number].reward()], &vec![(1000, open_script()); 60]);
        let txid = reward.compute_txid();
        let inputs: Vec<OutPoint> = (0..40).map(|vout| OutPoint { txid, vout }).collect();
        let next = spend(&inputs, &[(500, closed_script()), (400, open_script())]);
        made.push(block(made.last().unwrap().place, 1, vec![reward, next], 0));
    }
    for made in &made {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
    chain
}

/// Everything that an index can be asked about the chain, and what it answers.
fn answers(view: &View, indexes: &Indexes, kind: IndexKind) -> Vec<Result<String, String>> {
    let mut all = Vec::new();
    let mut told = |answer: Result<String, StoreError>| all.push(answer.map_err(|error| error.to_string()));
    for script in [open_script(), closed_script()] {
        if let Some(index) = indexes.script() {
            let script = ScriptHash::of(&script);
            told(index.history(&script, 100_000).map(|rows| format!("{rows:?}")));
            told(index.unspent(&script, 100_000).map(|rows| format!("{rows:?}")));
            told(index.balance(&script).map(|sum| sum.to_string()));
        }
    }
    for height in 0..=view.tip().height {
        let hash = view.hash_at(height).unwrap();
        let raw = view.block_bytes(&hash).unwrap().unwrap();
        let block: bitcoin::Block = bitcoin::consensus::deserialize(&raw).unwrap();
        match kind {
            IndexKind::Tx => {
                let index = indexes.tx().unwrap();
                let txids = block.txdata.iter().map(|tx| tx.compute_txid());
                txids.for_each(|txid| told(index.place(&txid).map(|place| format!("{place:?}"))));
            }
            IndexKind::Spender => {
                let index = indexes.spender().unwrap();
                let inputs = block.txdata.iter().skip(1).flat_map(|tx| &tx.input);
                inputs.for_each(|input| told(index.places(&input.previous_output).map(|row| format!("{row:?}"))));
            }
            IndexKind::Script => told(indexes.script().unwrap().txids(height).map(|ids| format!("{ids:?}"))),
            IndexKind::Filter => {
                let index = indexes.filter().unwrap();
                told(index.filter(height, &hash).map(|filter| format!("{filter:?}")));
                told(index.headers(height, &hash).map(|headers| format!("{headers:?}")));
            }
            IndexKind::Stats => told(
                indexes
                    .stats()
                    .unwrap()
                    .at(height, &hash)
                    .map(|stats| format!("{stats:?}")),
            ),
        }
    }
    all
}

fn open(view: &View, dir: &Path, kind: IndexKind) -> Result<Indexer, StoreError> {
    let table = kind.open_dir(dir, view.params())?;
    Indexer::open(view.clone(), vec![(kind, table)])
}

/// Has the engine write what it has in memory into table files, in two layers, as a large index has them.
fn write_tables(dir: &Path, kind: IndexKind) {
    let path = dir.join(kind.name());
    let database = fjall::Database::builder(&path).open().unwrap();
    for name in database.list_keyspace_names() {
        let space = database.keyspace(&name, fjall::KeyspaceCreateOptions::default).unwrap();
        space.rotate_memtable_and_wait().unwrap();
    }
}

/// What became of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    /// Everything went as if nothing had happened, perhaps because it was built again.
    Right,
    /// Something was named.
    Named,
}

fn use_it(view: &View, dir: &Path, kind: IndexKind, truth: &[Result<String, String>]) -> End {
    let mut indexer = match open(view, dir, kind) {
        Ok(indexer) => indexer,
        Err(error) => {
            one_line(&error.to_string());
            return End::Named;
        }
    };
    indexer.catch_up();
    let indexes = indexer.indexes();
    let progress = indexes.progress_of(kind).unwrap();
    let mut end = End::Right;
    let whole = progress.height == Some(view.tip().height);
    match &progress.trouble {
        Some(trouble) => {
            one_line(trouble);
            end = End::Named;
        }
        None => assert!(whole, "{progress:?}"),
    }
    for (answer, truth) in answers(view, &indexes, kind).iter().zip(truth) {
        match answer {
            // Where it stands lower it says so, and what it knows is what was.
            Ok(_) if answer == truth || !whole => {}
            Ok(text) => panic!("wrong: {text} for {truth:?}"),
            Err(text) => {
                one_line(text);
                end = End::Named;
            }
        }
    }
    end
}

#[test]
fn a_changed_byte_of_an_index_is_mended_named_or_harmless() {
    let flips = std::env::var("DUNLIN_FLIPS").map_or(FLIPS, |text| text.parse().unwrap());
    let chain = chain();
    let view = chain.view();
    let home = tempfile::tempdir().unwrap();
    let mut dice = Dice(7);
    let mut ends: HashMap<(IndexKind, End), usize> = HashMap::new();
    for kind in IndexKind::ALL {
        let whole = home.path().join(format!("{kind}-whole"));
        let mut indexer = open(&view, &whole, kind).unwrap();
        indexer.catch_up();
        let truth = answers(&view, &indexer.indexes(), kind);
        assert!(truth.iter().all(Result::is_ok));
        drop(indexer);
        write_tables(&whole, kind);
        assert_eq!(use_it(&view, &whole, kind, &truth), End::Right);
        let paths = files(&whole);
        assert!(
            paths.iter().any(|path| path.to_string_lossy().contains("/tables/")),
            "{paths:?}"
        );
        let paths = paths.iter().map(|path| path.strip_prefix(&whole).unwrap());
        for name in paths.cycle().take(flips.div_ceil(IndexKind::ALL.len())) {
            let damaged = home.path().join(format!("{kind}-damaged"));
            copy(&whole, &damaged);
            let what = dice.flip(&damaged, &damaged.join(name));
            let used = std::panic::catch_unwind(AssertUnwindSafe(|| use_it(&view, &damaged, kind, &truth)));
            let end = used.unwrap_or_else(|_| panic!("{what}"));
            *ends.entry((kind, end)).or_default() += 1;
            fs::remove_dir_all(&damaged).unwrap();
        }
    }
    println!("{flips} changed bytes in the indexes: {ends:?}");
}
