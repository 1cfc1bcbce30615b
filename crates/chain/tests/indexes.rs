//! Indexes: whatever happened to the chain, and whenever they were switched on or cut off, they say what a walk over
//! the chain from its first block says.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::bip158::{BlockFilter, FilterHash, FilterHeader};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use dunlin_chain::indexes::{IndexKind, Indexer, Indexes, MuHash, ScriptCoin, ScriptHash, ScriptTx};
use dunlin_chain::{Chain, ChainConfig, ChainStore, Network, Params, ParsedBlock, View};
use dunlin_store::{CrashDisk, StoreError, Table};
use regtest::*;

/// A script of our own that anyone can spend.
fn script(n: u8) -> ScriptBuf {
    ScriptBuf::from_bytes(vec![n % 16 + 0x51])
}

fn burn() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x6a, 1, 7])
}

/// 101 blocks, then spends of every kind: within a block, into other scripts, into nothing, to the same script.
fn trunk() -> Vec<Made> {
    let mut made = blocks(genesis(), 1, 104);
    let at = made[103].place;
    let first = spend(
        &[made[0].reward()],
        &[(1000, script(1)), (2000, script(2)), (3000, burn()), (4000, script(1))],
    );
    let inside = spend(&[out(&first, 1)], &[(500, script(3)), (600, script(2))]);
    made.push(block(at, 1, vec![first.clone(), inside.clone()], 0));
    let later = spend(&[out(&first, 0), out(&inside, 0), made[1].reward()], &[(77, script(1))]);
    made.push(block(made[104].place, 1, vec![later], 0));
    made.extend(blocks(made[105].place, 1, 2));
    made
}

/// Four blocks on top of the trunk's block 105, more than the trunk has there.
fn branch(trunk: &[Made]) -> Vec<Made> {
    let first = spend(&[trunk[2].reward()], &[(9, script(3)), (10, burn())]);
    let again = spend(
        &[out(&first, 0), out(&trunk[104].block.block().txdata[1], 3)],
        &[(1, script(2))],
    );
    let mut made = vec![block(trunk[104].place, 5, vec![first, again], 0)];
    made.extend(blocks(made[0].place, 5, 3));
    made
}

fn out(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint {
        txid: tx.compute_txid(),
        vout,
    }
}

fn chain() -> Chain {
    Chain::in_memory(Params::new(Network::Regtest)).unwrap()
}

fn give(chain: &mut Chain, made: &[Made]) {
    for made in made {
        chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
    }
}

fn tables() -> Vec<(IndexKind, Arc<dyn Table>)> {
    IndexKind::ALL
        .into_iter()
        .map(|kind| (kind, kind.in_memory()))
        .collect()
}

/// Compares every answer of the indexes with a walk over the chain up to the tip.
fn check(view: &View, indexes: &Indexes) {
    let tip = view.tip();
    for progress in indexes.progress() {
        assert_eq!(
            (progress.height, progress.trouble),
            (Some(tip.height), None),
            "{}",
            progress.kind
        );
    }
    let mut coins: BTreeMap<OutPoint, (TxOut, u32, u32)> = BTreeMap::new();
    let mut histories: BTreeMap<ScriptHash, Vec<ScriptTx>> = BTreeMap::new();
    let mut spent_by = BTreeMap::new();
    let mut previous = FilterHeader::all_zeros();
    let mut set = MuHash::default();
    let mut record = Vec::new();
    let mut hashed = |outpoint: &OutPoint, output: &TxOut, height: u32, coinbase: bool| {
        record = serialize(outpoint);
        record.extend(serialize(&(height * 2 + u32::from(coinbase))));
        record.extend(serialize(output));
        record.clone()
    };
    for height in 0..=tip.height {
        let hash = view.hash_at(height).unwrap();
        let block = ParsedBlock::parse(view.block_bytes(&hash).unwrap().unwrap()).unwrap();
        assert_eq!(
            indexes.script().unwrap().txids(height).unwrap(),
            block.txids,
            "ids of {height}"
        );
        let before = coins.clone();
        for (position, (tx, txid)) in (0u32..).zip(block.block().txdata.iter().zip(&block.txids)) {
            if height == 0 {
                assert_eq!(indexes.tx().unwrap().place(txid).unwrap(), None);
                continue;
            }
            let place = indexes.tx().unwrap().place(txid).unwrap().unwrap();
            assert_eq!((place.block, place.position), (hash, position));
            let row = ScriptTx {
                height,
                position,
                txid: *txid,
            };
            let mut touched = Vec::new();
            for input in tx.input.iter().filter(|_| position > 0) {
                let (output, made, at) = coins.remove(&input.previous_output).unwrap();
                set.remove(&hashed(&input.previous_output, &output, made, at == 0));
                touched.push(ScriptHash::of(&output.script_pubkey));
                spent_by.insert(input.previous_output, (height, position));
            }
            for (vout, output) in (0u32..)
                .zip(&tx.output)
                .filter(|(_, output)| !output.script_pubkey.is_op_return())
            {
                let outpoint = OutPoint { txid: *txid, vout };
                set.insert(&hashed(&outpoint, output, height, position == 0));
                coins.insert(outpoint, (output.clone(), height, position));
                touched.push(ScriptHash::of(&output.script_pubkey));
            }
            touched.sort();
            touched.dedup();
            for script in touched {
                histories.entry(script).or_default().push(row);
            }
        }
        let within: BTreeMap<OutPoint, ScriptBuf> = block
            .block()
            .txdata
            .iter()
            .flat_map(|tx| {
                (0..tx.output.len() as u32).map(|vout| (out(tx, vout), tx.output[vout as usize].script_pubkey.clone()))
            })
            .chain(
                before
                    .iter()
                    .map(|(at, (output, _, _))| (*at, output.script_pubkey.clone())),
            )
            .collect();
        let filter = BlockFilter::new_script_filter(block.block(), |at| Ok(within[at].clone())).unwrap();
        previous = filter.filter_header(&previous);
        let index = indexes.filter().unwrap();
        assert_eq!(
            index.filter(height, &hash).unwrap().unwrap(),
            filter.content,
            "filter of {height}"
        );
        let headers = index.headers(height, &hash).unwrap().unwrap();
        assert_eq!(
            (headers.header, headers.hash),
            (previous, FilterHash::hash(&filter.content))
        );
        let stats = indexes.stats().unwrap().at(height, &hash).unwrap().unwrap();
        assert_eq!(stats.muhash, set.digest(), "statistics of {height}");
        assert_eq!(stats.outputs, coins.len() as u64);
        assert_eq!(
            stats.total_amount,
            coins.values().map(|(output, _, _)| output.value.to_sat()).sum::<u64>()
        );
    }
    let index = indexes.script().unwrap();
    for (script, history) in &histories {
        assert_eq!(index.history(script, 10_000).unwrap().unwrap(), *history);
        let mut unspent: Vec<ScriptCoin> = coins
            .iter()
            .filter(|(_, (output, _, _))| ScriptHash::of(&output.script_pubkey) == *script)
            .map(|(outpoint, (output, height, position))| ScriptCoin {
                outpoint: *outpoint,
                amount: output.value,
                height: *height,
                position: *position,
            })
            .collect();
        unspent.sort_by_key(|coin| (coin.height, coin.position, coin.outpoint.vout));
        assert_eq!(
            index.balance(script).unwrap(),
            unspent.iter().map(|coin| coin.amount).sum::<Amount>()
        );
        assert_eq!(index.unspent(script, 10_000).unwrap().unwrap(), unspent);
        assert_eq!(index.history(script, history.len() - 1).unwrap(), None);
    }
    for n in 0..16 {
        let script = ScriptHash::of(&script(n));
        assert!(histories.contains_key(&script) || index.history(&script, 9).unwrap().unwrap().is_empty());
    }
    let spenders = indexes.spender().unwrap();
    for (outpoint, (height, position)) in &spent_by {
        let found = spenders.places(outpoint).unwrap();
        assert_eq!(
            found.iter().map(|at| (at.height, at.position)).collect::<Vec<_>>(),
            [(*height, *position)]
        );
    }
    for outpoint in coins.keys() {
        assert_eq!(spenders.places(outpoint).unwrap(), []);
    }
}

#[test]
fn they_follow_the_chain_and_its_reorganisations() {
    let (trunk, mut chain) = (trunk(), chain());
    let mut indexer = Indexer::open(chain.view(), tables()).unwrap();
    let indexes = indexer.indexes();
    give(&mut chain, &trunk[..50]);
    indexer.catch_up();
    check(&chain.view(), &indexes);
    for made in &trunk[50..] {
        give(&mut chain, std::slice::from_ref(made));
        indexer.catch_up();
    }
    check(&chain.view(), &indexes);
    let (stale, old) = (chain.view().tip(), trunk[105].block.txids[1]);
    give(&mut chain, &branch(&trunk));
    assert_ne!(chain.view().hash_at(106), Some(trunk[105].place.hash));
    indexer.catch_up();
    check(&chain.view(), &indexes);
    // What is known of blocks that have left the chain stays.
    assert_eq!(
        indexes.tx().unwrap().place(&old).unwrap().unwrap().block,
        trunk[105].place.hash
    );
    assert!(
        indexes
            .filter()
            .unwrap()
            .filter(stale.height, &stale.hash)
            .unwrap()
            .is_some()
    );
    assert!(
        indexes
            .stats()
            .unwrap()
            .at(stale.height, &stale.hash)
            .unwrap()
            .is_some()
    );
    // And back again.
    give(&mut chain, &blocks(trunk[107].place, 9, 3));
    assert_eq!(chain.view().hash_at(106), Some(trunk[105].place.hash));
    indexer.catch_up();
    check(&chain.view(), &indexes);
    assert_eq!(indexes.lowest_needed(), Some(chain.view().tip().height + 1));
}

#[test]
fn one_that_is_switched_on_later_comes_to_the_same() {
    let (trunk, mut chain) = (trunk(), chain());
    let tables = tables();
    give(&mut chain, &trunk);
    let headers: Vec<_> = blocks(trunk[107].place, 1, 400)
        .iter()
        .map(|made| *made.block.header())
        .collect();
    // With so many headers ahead, nothing is near the end: blocks are taken in batches.
    chain.accept_headers(NOW, &headers).unwrap();
    Indexer::open(chain.view(), tables[..2].to_vec()).unwrap().catch_up();
    let mut indexer = Indexer::open(chain.view(), tables.clone()).unwrap();
    let indexes = indexer.indexes();
    let progress = indexes.progress();
    assert_eq!(
        progress.iter().map(|row| row.height).collect::<Vec<_>>(),
        [Some(108), Some(108), None, None, None]
    );
    assert_eq!(indexes.lowest_needed(), Some(0));
    indexer.catch_up();
    check(&chain.view(), &indexes);
    assert!(indexes.progress().iter().all(|row| row.synced));
    // A branch below blocks that were taken in batches: there is no way back, so they begin anew.
    give(&mut chain, &branch(&trunk));
    indexer.catch_up();
    check(&chain.view(), &indexes);
}

#[test]
fn one_without_its_blocks_says_so_and_the_others_go_on() {
    let trunk = trunk();
    let disk = CrashDisk::new(1, None);
    let mut chain = Chain::open(
        Params::new(Network::Regtest),
        ChainStore::on_crash_disk(&disk),
        ChainConfig::default(),
    )
    .unwrap();
    let tables = tables();
    give(&mut chain, &trunk[..60]);
    Indexer::open(chain.view(), tables[1..].to_vec()).unwrap().catch_up();
    chain.mark_lost(&trunk[20].place.hash).unwrap();
    let mut indexer = Indexer::open(chain.view(), tables).unwrap();
    give(&mut chain, &trunk[60..90]);
    indexer.catch_up();
    let progress = indexer.indexes().progress();
    let trouble = progress[0].trouble.clone().unwrap();
    assert_eq!(progress[0].height, Some(20));
    assert!(
        trouble.contains(&format!("the data of block {} at height 21", trunk[20].place.hash)),
        "{trouble}"
    );
    assert!(
        progress[1..]
            .iter()
            .all(|row| row.height == Some(90) && row.trouble.is_none())
    );
    assert_eq!(indexer.indexes().lowest_needed(), Some(91));
    // The block comes back.
    give(&mut chain, &trunk[20..21]);
    indexer.catch_up();
    check(&chain.view(), &indexer.indexes());
}

#[test]
fn the_thread_follows_on_its_own_and_ends() {
    let (trunk, mut chain) = (trunk(), chain());
    let view = chain.view();
    let indexer = Indexer::open(view.clone(), tables()).unwrap();
    let indexes = indexer.indexes();
    let thread = std::thread::spawn(move || indexer.run());
    let patience = Duration::from_secs(60);
    let began = std::time::Instant::now();
    while !indexes.progress().iter().all(|row| row.synced) {
        assert!(began.elapsed() < patience);
        std::thread::yield_now();
    }
    for made in &trunk {
        give(&mut chain, std::slice::from_ref(made));
        if made.place.height % 10 == 0 {
            assert!(
                IndexKind::ALL
                    .into_iter()
                    .all(|kind| indexes.wait_synced(&view, kind, patience))
            );
            assert!(
                indexes
                    .progress()
                    .iter()
                    .all(|row| row.height == Some(made.place.height))
            );
        }
    }
    give(&mut chain, &branch(&trunk));
    assert!(
        IndexKind::ALL
            .into_iter()
            .all(|kind| indexes.wait_synced(&view, kind, patience))
    );
    check(&view, &indexes);
    indexes.stop(&view);
    thread.join().unwrap();
    assert!(!indexes.wait_synced(&view, IndexKind::Tx, patience));
    assert!(!Indexes::default().wait_synced(&view, IndexKind::Tx, patience));
}

/// The indexes' own disks, one for each, which lose their power all at once.
struct Disks(Vec<CrashDisk>);

impl Disks {
    fn new(seed: u64, stop: Option<(usize, u64)>) -> Self {
        let stop_of = |index| stop.filter(|(at, _)| *at == index).map(|(_, operation)| operation);
        Self(
            (0..5)
                .map(|index| CrashDisk::new(seed + index as u64, stop_of(index)))
                .collect(),
        )
    }

    fn tables(&self) -> Vec<(IndexKind, Arc<dyn Table>)> {
        let table = |disk: &CrashDisk| Arc::new(disk.table()) as Arc<dyn Table>;
        IndexKind::ALL.into_iter().zip(self.0.iter().map(table)).collect()
    }

    fn after_power_loss(&self) -> Self {
        Self(self.0.iter().map(|disk| disk.power_loss(None)).collect())
    }
}

/// Runs trunk and branch, with the indexes catching up now and then, until one index's disk stops.
fn story(chain: &mut Chain, made: &[Made], disks: &Disks) -> Result<(), StoreError> {
    let mut indexer = Indexer::open(chain.view(), disks.tables())?;
    for (n, one) in made.iter().enumerate() {
        give(chain, std::slice::from_ref(one));
        if n > 100 || n % 33 == 0 {
            indexer.catch_up();
        }
        if disks.0.iter().any(CrashDisk::is_off) {
            return Err(StoreError::PowerLoss);
        }
    }
    Ok(())
}

#[test]
fn power_loss_at_every_operation_of_every_index() {
    let mut made = trunk();
    let branch = branch(&made);
    made.extend(branch);
    let disks = Disks::new(0, None);
    let mut whole = chain();
    story(&mut whole, &made, &disks).unwrap();
    let operations: Vec<u64> = disks.0.iter().map(CrashDisk::operations).collect();
    for (index, operations) in operations.into_iter().enumerate() {
        assert!(operations > 100, "{operations}");
        // The first hundred blocks are alike.
        for operation in [0, 1, 2, 50].into_iter().chain(97..operations) {
            let disks = Disks::new(operation * 8, Some((index, operation)));
            let mut chain = chain();
            assert!(matches!(story(&mut chain, &made, &disks), Err(StoreError::PowerLoss)));
            let found = disks.after_power_loss();
            // The chain may have kept less than the index: then the index steps back, or waits for it.
            let reached = chain.view().tip().height;
            let mut chain = self::chain();
            give(&mut chain, &made[..reached.saturating_sub(3).min(100) as usize]);
            let mut indexer = Indexer::open(chain.view(), found.tables()).unwrap();
            indexer.catch_up();
            give(&mut chain, &made);
            indexer.catch_up();
            check(&chain.view(), &indexer.indexes());
        }
    }
}

/// The index of transactions in a folder, taken as far as it goes.
fn tx_index_in(dir: &std::path::Path, view: &View) -> Result<Indexes, StoreError> {
    let table = IndexKind::Tx.open_dir(dir, view.params())?;
    let mut indexer = Indexer::open(view.clone(), vec![(IndexKind::Tx, table)])?;
    indexer.catch_up();
    Ok(indexer.indexes())
}

#[test]
fn a_changed_byte_of_an_index_costs_that_index_alone() {
    let mut chain = chain();
    let made = trunk();
    give(&mut chain, &made);
    let view = chain.view();
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    std::fs::create_dir(&whole).unwrap();
    drop(tx_index_in(&whole, &view).unwrap());
    let files = files_below(&whole);
    assert!(files.len() > 3, "{files:?}");
    let mut known = 0;
    for file in &files {
        let bytes = std::fs::read(whole.join(file)).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for place in (0..used).step_by((used / 5).max(1)) {
            let dir = folder.path().join("damaged");
            copy(&whole, &files, &dir);
            let mut changed = bytes.clone();
            changed[place] ^= 0x10;
            std::fs::write(dir.join(file), changed).unwrap();
            let indexes = tx_index_in(&dir, &view).unwrap();
            let progress = indexes.progress_of(IndexKind::Tx).unwrap();
            match progress.trouble {
                Some(text) => assert!(
                    text.contains("delete the folder indexes/tx"),
                    "{file:?} {place}: {text}"
                ),
                None => {
                    assert_eq!(progress.height, Some(view.tip().height), "{file:?} {place}");
                    known += 1;
                }
            }
            let mut lost = 0;
            for block in made.iter().map(|made| &made.block) {
                match indexes.tx().unwrap().place(&block.txids[0]) {
                    Ok(found) => lost += u32::from(found.is_none()),
                    Err(error) => assert!(error.is_damage(), "{error}"),
                }
            }
            assert_eq!(lost, 0, "{file:?} {place}: the index is whole or says that it is not");
            drop(indexes);
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
    assert!(known > 8, "{known}");
}

/// Every file of a folder and those in it, by its way from there.
fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &std::path::Path, files: &[std::path::PathBuf], to: &std::path::Path) {
    for file in files {
        std::fs::create_dir_all(to.join(file).parent().unwrap()).unwrap();
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}
