//! A disk without space: a typed error, nothing damaged, and on it goes once there is space again.
#![allow(clippy::unwrap_used)]

mod regtest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::OutPoint;
use dunlin_chain::{BlockError, Chain, ChainConfig, ChainStore, Network, Params, StoreError, View};
use dunlin_store::{Files, MemFiles};
use regtest::*;

/// Files of which some cannot grow while `full` says so.
struct Tight {
    inner: MemFiles,
    full: AtomicBool,
    kind: &'static str,
}

impl Files for Tight {
    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) && name.starts_with(self.kind) {
            // Half of it still fitted.
            self.inner.write_at(name, offset, &data[..data.len() / 2])?;
            return Err(StoreError::DiskFull { path: name.into() });
        }
        self.inner.write_at(name, offset, data)
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.inner.read_at(name, offset, len)
    }

    fn len(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.inner.len(name)
    }

    fn sync(&self, name: &str) -> Result<(), StoreError> {
        self.inner.sync(name)
    }

    fn list(&self) -> Result<Vec<String>, StoreError> {
        self.inner.list()
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.inner.remove(name)
    }
}

#[test]
fn a_full_disk_is_named_and_damages_nothing() {
    for kind in ["blk", "rev"] {
        let tight = Arc::new(Tight {
            inner: MemFiles::default(),
            full: AtomicBool::new(false),
            kind,
        });
        let mut store = ChainStore::in_memory();
        store.files = Arc::clone(&tight) as Arc<dyn Files>;
        let mut chain = Chain::open(Params::new(Network::Regtest), store, ChainConfig::default()).unwrap();
        let view = chain.view();
        let trunk = blocks(genesis(), 1, 101);
        for made in &trunk {
            chain.accept_block(NOW, Arc::clone(&made.block)).unwrap();
        }
        let tx = spend(&[trunk[0].reward()], &[(5, open_script())]);
        let paid = OutPoint {
            txid: tx.compute_txid(),
            vout: 0,
        };
        let next = block(trunk[100].place, 1, vec![tx], 0);

        tight.full.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            match chain.accept_block(NOW, Arc::clone(&next.block)) {
                Err(BlockError::Store(StoreError::DiskFull { path })) => {
                    assert!(path.to_str().unwrap().starts_with(kind));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(view.tip().hash, trunk[100].place.hash);
            assert_eq!(view.coin(&paid).unwrap(), None);
            assert!(view.coin(&trunk[0].reward()).unwrap().is_some());
        }

        tight.full.store(false, Ordering::Relaxed);
        chain.accept_block(NOW, Arc::clone(&next.block)).unwrap();
        assert_eq!(view.tip().hash, next.place.hash);
        assert!(view.coin(&paid).unwrap().is_some());
        assert_eq!(view.block_bytes(&next.place.hash).unwrap().unwrap(), next.block.raw);
        assert_eq!(view.undo(&next.place.hash).unwrap().unwrap().spent[0].len(), 1);
    }
}

/// The chain lives on a thread of its own and is read from any.
#[test]
fn chain_and_view_go_where_they_are_needed() {
    fn moves<T: Send + 'static>(_: &T) {}
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let chain = Chain::in_memory(Params::new(Network::Regtest)).unwrap();
    shared::<View>(&chain.view());
    moves(&chain);
    let view = chain.view();
    let chain = std::thread::spawn(move || chain).join().unwrap();
    assert_eq!(chain.view().tip(), view.tip());
}
