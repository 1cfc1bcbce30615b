use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::merge::FAN;
use super::*;
use crate::{CrashDisk, MemFiles};

/// How many keys there are.
const KEYS: u64 = 150;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A writer that does the same from the same seed, and knows what should be there.
struct Player {
    dice: u64,
    model: Model,
    round: u32,
}

impl Player {
    fn new(seed: u64) -> Self {
        Self {
            dice: seed,
            model: Model::new(),
            round: 0,
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    /// Puts some keys and removes some.
    fn change(&mut self, store: &Layered, count: u64) {
        let mut changes = Changes::default();
        self.round += 1;
        for _ in 0..count {
            let key = format!("key {}", self.roll(KEYS)).into_bytes();
            if self.roll(5) < 3 {
                let value = vec![self.round as u8; self.roll(90) as usize];
                let fresh = !self.model.contains_key(&key) && self.roll(4) > 0;
                changes.put(&key, fresh, |out| out.extend_from_slice(&value));
                self.model.insert(key, value);
            } else {
                changes.remove(&key);
                self.model.remove(&key);
            }
        }
        store.publish(&changes, || ()).unwrap();
    }
}

fn steps(disk: &CrashDisk) -> Result<Layered, StoreError> {
    Layered::open(Arc::new(disk.files()), "t", Writing::Steps)
}

fn all(store: &Layered) -> Model {
    let mut found = Model::new();
    store
        .snapshot()
        .scan(&[], &mut |key, value| {
            found.insert(key.to_vec(), value.to_vec());
            Step::Continue
        })
        .unwrap();
    found
}

fn get(store: &Layered, key: &[u8]) -> Option<Vec<u8>> {
    store.get(key, <[u8]>::to_vec).unwrap()
}

fn compare(store: &Layered, model: &Model) -> Result<(), StoreError> {
    for n in 0..KEYS {
        let key = format!("key {n}").into_bytes();
        assert_eq!(store.get(&key, <[u8]>::to_vec)?.as_ref(), model.get(&key), "{n}");
    }
    Ok(())
}

fn assert_is(store: &Layered, model: &Model) {
    compare(store, model).unwrap();
}

fn no_barrier() -> Barrier {
    Box::new(|| Ok(()))
}

/// Changes, frozen layers and merges between each other; a model of each mark that was set.
fn play(store: &Layered, disk: &CrashDisk, start: &Model, models: &mut BTreeMap<u32, Model>) -> Result<(), StoreError> {
    let mut player = Player::new(5);
    player.model = start.clone();
    for _ in 0..FAN + 6 {
        player.change(store, 30);
        compare(store, &player.model)?;
        models.insert(player.round, player.model.clone());
        let files = disk.files();
        let round = player.round.to_be_bytes();
        files.write_at("log", u64::from(player.round) * 4, &round)?;
        store.freeze(&round, Box::new(move || files.sync("log")))?;
        for _ in 0..player.roll(25) {
            player.change(store, 3);
            store.step()?;
        }
        compare(store, &player.model)?;
    }
    store.wait()?;
    for _ in 0..30 {
        store.step()?;
    }
    compare(store, &player.model)
}

#[test]
fn power_loss_at_every_operation_leaves_the_state_of_a_mark() {
    let disk = CrashDisk::new(1, None);
    let mut models = BTreeMap::new();
    play(&steps(&disk).unwrap(), &disk, &Model::new(), &mut models).unwrap();
    let operations = disk.operations();
    let runs = disk.files().list().unwrap();
    assert!(operations > 60 && runs.len() < 13, "{operations} operations, {runs:?}");

    let mut marks = std::collections::BTreeSet::new();
    for stop in 0..operations {
        for luck in 0..2 {
            let disk = CrashDisk::new(luck, Some(stop));
            let mut models = BTreeMap::new();
            let played = steps(&disk).and_then(|store| play(&store, &disk, &Model::new(), &mut models));
            assert!(matches!(played, Err(StoreError::PowerLoss)), "{stop}: {played:?}");
            let found = if luck == 0 {
                disk.process_killed(None)
            } else {
                disk.power_loss(None)
            };
            let store = steps(&found).unwrap();
            let round = store
                .mark()
                .map_or(0, |mark| u32::from_be_bytes((*mark).try_into().unwrap()));
            marks.insert(round);
            let model = models.get(&round).cloned().unwrap_or_default();
            assert_eq!(all(&store), model, "operation {stop}, luck {luck}");
            assert_is(&store, &model);
            if round > 0 {
                // What the barrier stands for is there.
                let log = found.files().read_at("log", u64::from(round) * 4, 4).unwrap();
                assert_eq!(log, round.to_be_bytes());
            }
            // Only what the manifest names is left.
            let count = store.core.read().runs.len();
            let left = found.files().list().unwrap();
            assert_eq!(left.iter().filter(|name| name.ends_with(".run")).count(), count);
            play(&store, &found, &model, &mut BTreeMap::new()).unwrap_or_else(|error| panic!("{stop}: {error}"));
        }
    }
    assert!(marks.len() > FAN, "{marks:?}");
}

#[test]
fn what_is_born_and_removed_within_a_layer_is_never_written() {
    let files: Arc<dyn Files> = Arc::new(MemFiles::default());
    let store = Layered::open(Arc::clone(&files), "t", Writing::Steps).unwrap();
    let mut changes = Changes::default();
    for n in 0..1000u32 {
        changes.put(&n.to_be_bytes(), true, |out| out.extend_from_slice(&[9; 40]));
        if n != 500 {
            changes.remove(&n.to_be_bytes());
        }
    }
    store.publish(&changes, || ()).unwrap();
    store.freeze(b"m", no_barrier()).unwrap();
    store.wait().unwrap();
    assert_eq!(
        store.core.read().runs.iter().map(|run| run.meta.records).sum::<u64>(),
        1
    );
    assert_eq!(
        all(&store).into_iter().collect::<Vec<_>>(),
        [(500u32.to_be_bytes().to_vec(), vec![9; 40])]
    );
    assert_eq!(store.mark().as_deref(), Some(b"m".as_slice()));
    // Without changes only the mark moves.
    store.freeze(b"n", no_barrier()).unwrap();
    store.wait().unwrap();
    assert_eq!(store.core.read().runs.len(), 1);
    assert_eq!(store.mark().as_deref(), Some(b"n".as_slice()));
}

/// Files that note which bytes they were told will be needed, and which were read.
#[derive(Default)]
struct Noting {
    files: MemFiles,
    needed: Mutex<BTreeSet<(String, u64, u64)>>,
    read: Mutex<BTreeSet<(String, u64, u64)>>,
}

impl Files for Noting {
    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        self.files.write_at(name, offset, data)
    }
    fn read_at(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        lock(&self.read).insert((name.to_owned(), offset, len as u64));
        self.files.read_at(name, offset, len)
    }
    fn will_need(&self, name: &str, offset: u64, len: u64) {
        lock(&self.needed).insert((name.to_owned(), offset, len));
    }
    fn len(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.files.len(name)
    }
    fn sync(&self, name: &str) -> Result<(), StoreError> {
        self.files.sync(name)
    }
    fn list(&self) -> Result<Vec<String>, StoreError> {
        self.files.list()
    }
    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.files.remove(name)
    }
}

#[test]
fn what_will_be_needed_is_what_is_read() {
    let noting = Arc::new(Noting::default());
    let store = Layered::open(Arc::clone(&noting) as Arc<dyn Files>, "t", Writing::Steps).unwrap();
    let key = |n: u32| n.wrapping_mul(0x9e37_79b9).to_be_bytes();
    for part in 0..3u32 {
        let mut changes = Changes::default();
        for n in part * 4000..(part + 1) * 4000 {
            changes.put(&key(n), true, |out| out.extend_from_slice(&[1; 60]));
        }
        store.publish(&changes, || ()).unwrap();
        if part < 2 {
            store.freeze(b"m", no_barrier()).unwrap();
            store.wait().unwrap();
        }
    }
    store.forget_clean();
    // A third on disk in each run, a third in memory.
    let keys: Vec<[u8; 4]> = (0..12_000).step_by(7).map(key).collect();
    lock(&noting.read).clear();
    store.will_need(keys.iter().map(|key| &key[..]));
    assert!(lock(&noting.read).is_empty());
    for key in &keys {
        assert!(get(&store, key).is_some());
    }
    let (needed, read) = (lock(&noting.needed).clone(), lock(&noting.read).clone());
    assert!(read.len() > 100 && read.is_subset(&needed));
    assert!(
        needed.len() < read.len() + read.len() / 10,
        "{} for {}",
        needed.len(),
        read.len()
    );
}

#[test]
fn readers_see_one_state_while_layers_move_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(crate::DirFiles::open(dir.path()).unwrap());
    let store = Layered::open(Arc::clone(&files), "t", Writing::Background).unwrap();
    let stop = AtomicBool::new(false);
    let key = |n: u32| n.to_be_bytes();
    std::thread::scope(|scope| {
        // Key n and key n + 1000 always change together; key 5000 is always there.
        let reader = || {
            let mut seen = 0u64;
            while !stop.load(Ordering::Relaxed) {
                for n in 0..50 {
                    let before = get(&store, &key(n));
                    let other = get(&store, &key(n + 1000));
                    let after = get(&store, &key(n));
                    assert!(before != after || before.is_some() == other.is_some());
                    seen += u64::from(other.is_some());
                }
                let all: Vec<&[u8]> = [&[0u8, 0, 0, 7][..], &[0, 0, 3, 239]].to_vec();
                store.will_need(all.into_iter());
                assert!(store.mark().is_none() || get(&store, &key(5000)).is_some());
            }
            seen
        };
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(reader)).collect();
        let mut changes = Changes::default();
        changes.put(&key(5000), true, |out| out.push(1));
        store.publish(&changes, || ()).unwrap();
        for round in 0..300u32 {
            for n in 0..50 {
                let mut changes = Changes::default();
                // A value of its own each time, so that a reader can tell one state from a later one.
                for key in [key(n), key(n + 1000)] {
                    if (round + n).is_multiple_of(2) {
                        changes.put(&key, true, |out| out.extend_from_slice(&round.to_be_bytes()));
                    } else {
                        changes.remove(&key);
                    }
                }
                store.publish(&changes, || ()).unwrap();
            }
            store.freeze(&key(round), no_barrier()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    });
    store.wait().unwrap();
    let there = all(&store);
    drop(store);
    let store = Layered::open(files, "t", Writing::Background).unwrap();
    assert_eq!(store.mark().as_deref(), Some(key(299).as_slice()));
    assert_eq!(all(&store), there);
    assert_eq!(there.len(), 51);
}

#[test]
fn an_error_in_the_background_is_told_and_tried_again() {
    for writing in [Writing::Steps, Writing::Background] {
        let files: Arc<dyn Files> = Arc::new(MemFiles::default());
        let store = Layered::open(files, "t", writing).unwrap();
        let mut player = Player::new(2);
        player.change(&store, 100);
        let full = Arc::new(AtomicBool::new(true));
        let barrier = {
            let full = Arc::clone(&full);
            move || match full.load(Ordering::Relaxed) {
                true => Err(StoreError::DiskFull { path: "x".into() }),
                false => Ok(()),
            }
        };
        store.freeze(b"one", Box::new(barrier)).unwrap();
        for _ in 0..3 {
            assert!(matches!(store.wait(), Err(StoreError::DiskFull { .. })));
            assert!(matches!(
                store.freeze(b"two", no_barrier()),
                Err(StoreError::DiskFull { .. })
            ));
            assert_is(&store, &player.model);
            assert_eq!(store.mark(), None);
        }
        full.store(false, Ordering::Relaxed);
        player.change(&store, 100);
        // An attempt that had begun before may still fail.
        while store.freeze(b"two", no_barrier()).is_err() {}
        store.wait().unwrap();
        assert_eq!(store.mark().as_deref(), Some(b"two".as_slice()));
        assert_eq!(all(&store), player.model);
    }
}

#[test]
fn a_flipped_bit_in_a_run_is_found_and_named_wherever_it_is() {
    let disk = CrashDisk::new(1, None);
    let store = steps(&disk).unwrap();
    let mut player = Player::new(4);
    player.change(&store, 2000);
    store.freeze(b"m", no_barrier()).unwrap();
    store.wait().unwrap();
    drop(store);
    let name = "t-000000.run";
    let len = disk.files().len(name).unwrap().unwrap() as usize;
    for offset in (0..len).step_by(11) {
        disk.flip_bit(name, offset).unwrap();
        let found = steps(&disk).and_then(|store| store.snapshot().scan(&[], &mut |_, _| Step::Continue));
        match found {
            Err(StoreError::Corrupt { what }) => assert!(what.contains(name), "{what}"),
            other => panic!("byte {offset}: {other:?}"),
        }
        disk.flip_bit(name, offset).unwrap();
    }
    assert_eq!(all(&steps(&disk).unwrap()), player.model);
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let store = Layered::open(Arc::new(MemFiles::default()), "t", Writing::Steps).unwrap();
    for (key, value) in [(0, 1), (256, 1), (1, 60_001)] {
        let mut changes = Changes::default();
        changes.put(&vec![1; key], true, |out| out.resize(out.len() + value, 0));
        assert!(store.publish(&changes, || ()).is_err());
    }
    let mut changes = Changes::default();
    changes.put(&[1; 255], true, |out| out.resize(out.len() + 60_000, 0));
    store.publish(&changes, || ()).unwrap();
    store.freeze(b"", no_barrier()).unwrap();
    store.wait().unwrap();
    store.forget_clean();
    assert_eq!(get(&store, &[1; 255]).unwrap().len(), 60_000);
}

#[test]
fn a_damaged_block_is_mended_with_what_is_true() {
    let disk = CrashDisk::new(1, None);
    let store = steps(&disk).unwrap();
    let mut player = Player::new(4);
    // Several runs, the last of which has blocks in plenty.
    for count in [3000, 3000, 100, 3000] {
        player.change(&store, count);
        store.freeze(b"m", no_barrier()).unwrap();
        store.wait().unwrap();
    }
    drop(store);
    let metas: Vec<run::Meta> = steps(&disk)
        .unwrap()
        .core
        .read()
        .runs
        .iter()
        .map(|run| run.meta)
        .collect();
    let runs: Vec<String> = metas.iter().map(|meta| run::file_name("t", meta.number)).collect();
    assert!(runs.len() > 2, "{runs:?}");
    // One block in each run; then all blocks of one run; then everything there is.
    let all_of = |at: usize| {
        let offsets = (60..metas[at].blocks_len as usize).step_by(1500);
        offsets.map(|offset| (&runs[at], offset)).collect::<Vec<_>>()
    };
    let mut rounds: Vec<Vec<(&String, usize)>> = Vec::new();
    rounds.extend((0..runs.len()).map(|at| vec![all_of(at)[0]]));
    rounds.extend((0..runs.len()).map(all_of));
    rounds.push((0..runs.len()).flat_map(all_of).collect());
    for round in rounds {
        let disk = disk.process_killed(None);
        for (name, offset) in &round {
            disk.flip_bit(name, *offset).unwrap();
        }
        let store = steps(&disk).unwrap();
        let damage = store.damage().unwrap();
        assert!(!damage.is_empty(), "{round:?}");
        let keys = || (0..KEYS).map(|n| format!("key {n}").into_bytes());
        for key in keys() {
            // What is not among the damaged is not affected.
            if !damage.iter().any(|damage| damage.may_have(&key)) {
                assert_eq!(get(&store, &key).as_ref(), player.model.get(&key));
            }
        }
        let met = keys().any(|key| store.get(&key, |_| ()).is_err());
        assert_eq!(store.take_damage_met(), met);
        // Only what is damaged has to be known.
        let truth = player.model.clone().into_iter();
        let truth = truth.filter(|(key, _)| damage.iter().any(|damage| damage.may_have(key)));
        store.mend(&damage, &truth.collect()).unwrap();
        assert_eq!(store.damage().unwrap(), []);
        assert_is(&store, &player.model);
        drop(store);
        let store = steps(&disk.power_loss(None)).unwrap();
        assert_is(&store, &player.model);
    }
}
