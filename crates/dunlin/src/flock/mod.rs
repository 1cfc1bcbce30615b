//! `dunlin flock`: whole peers on this machine show the idea of the program, act by act.
//!
//! Each peer is a process of its own with a data directory of its own, on loopback and regtest. They stand in a ring
//! with chords, so that the loss of any one leaves the others connected.

mod file;
mod money;
mod peer;
mod story;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::cli::FlockArgs;
use peer::Peer;
use story::Story;

/// How long any single act may take before the flock says what did not happen.
const ACT_LIMIT: Duration = Duration::from_secs(60);
/// The first shared file, in bytes.
const FIRST_FILE: usize = 64 << 20;
/// The file that is shared while a peer is dead, in bytes.
const SECOND_FILE: usize = 16 << 20;
/// Blocks in the first act: coinbases mature after 100.
const FIRST_BLOCKS: u32 = 110;

pub(crate) fn run(args: &FlockArgs) -> anyhow::Result<()> {
    let stop = interrupted()?;
    let (root, temporary) = match &args.data_dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let temp = TemporaryDir::create()?;
            (temp.0.clone(), Some(temp))
        }
    };
    let mut flock = Flock {
        peers: Vec::new(),
        story: Story::new(stop),
        root,
    };
    let result = flock.play(usize::from(args.peers), args.exit);
    flock.stop();
    drop(temporary);
    match result {
        Err(_) if flock.story.interrupted() => Ok(()),
        other => other,
    }
}

/// A flag that Ctrl-C or a termination signal raises.
fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&raised);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if crate::daemon::signals::wait_blocking().is_ok() {
            flag.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(raised)
}

struct Flock {
    peers: Vec<Peer>,
    story: Story,
    root: PathBuf,
}

impl Flock {
    fn play(&mut self, count: usize, exit: bool) -> anyhow::Result<()> {
        self.gather(count)?;
        self.mine_and_agree()?;
        let (key, coin) = self.flood_a_transaction()?;
        self.share(0, "first", FIRST_FILE)?;
        self.lose_one_and_go_on(&key, coin)?;
        self.story.title("The story is told");
        for peer in &self.peers {
            self.story.say(format!("{}: {}", peer.name, peer.dashboard()?));
        }
        if !exit {
            self.story.say("The flock stays up. Ctrl-C ends it.");
            while !self.story.interrupted() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// Starts the peers and ties them into a ring with chords.
    fn gather(&mut self, count: usize) -> anyhow::Result<()> {
        self.story.title(format!(
            "{count} equal peers start, each with a data directory of its own"
        ));
        for index in 0..count {
            self.peers.push(Peer::start(index, &self.root)?);
        }
        for peer in &mut self.peers {
            peer.wait_ready(&self.story)?;
            self.story.say(format!(
                "{} listens on {} and {}",
                peer.name,
                peer.bitcoin_addr()?,
                peer.torrent_addr()?
            ));
        }
        for (from, to) in ring_with_chords(count) {
            self.peers[from].connect_to(&self.peers[to])?;
        }
        let peers = &self.peers;
        self.story
            .until("all are connected in a ring with chords", ACT_LIMIT, || {
                all(peers, |peer| Ok(peer.connections()? >= 2))
            })
    }

    fn mine_and_agree(&mut self) -> anyhow::Result<()> {
        self.story
            .title(format!("One mines {FIRST_BLOCKS} blocks; nobody leads, yet all agree"));
        let miner = &self.peers[0];
        miner.mine(FIRST_BLOCKS, &money::Key::first()?.address()?)?;
        self.story.say(format!("{} found {FIRST_BLOCKS} blocks", miner.name));
        self.agree(FIRST_BLOCKS.into())
    }

    /// Waits until every peer that runs has the same tip at `height`.
    fn agree(&self, height: u64) -> anyhow::Result<()> {
        let running: Vec<&Peer> = self.peers.iter().filter(|peer| peer.runs()).collect();
        let first = running.first().context("a peer runs")?;
        let what = format!("all {} agree on block {height}", running.len());
        self.story.until(&what, ACT_LIMIT, || {
            let tip = first.tip()?;
            all(running.iter().copied(), |peer| {
                Ok(peer.height()? == height && peer.tip()? == tip)
            })
        })?;
        self.story.say(format!("the block is {}", short(&first.tip()?)));
        Ok(())
    }

    /// Sends a signed transaction from one peer, sees it in every mempool, mines it.
    fn flood_a_transaction(&mut self) -> anyhow::Result<(money::Key, money::Coin)> {
        self.story.title("A signed transaction floods to all and is mined");
        let key = money::Key::first()?;
        let coin = money::Coin::coinbase(&self.peers[0].client, 1)?;
        let change = self.flood(&key, &coin, self.peers.len() - 1, u64::from(FIRST_BLOCKS) + 1)?;
        Ok((key, change))
    }

    fn flood(&self, key: &money::Key, coin: &money::Coin, from: usize, height: u64) -> anyhow::Result<money::Coin> {
        let running: Vec<&Peer> = self.peers.iter().filter(|peer| peer.runs()).collect();
        let (sender, miner) = (&self.peers[from], running[running.len() / 2]);
        let (transaction, change) = key.pay(coin)?;
        let txid = sender.send_transaction(&transaction)?;
        self.story
            .say(format!("{} signs and sends {}", sender.name, short(&txid)));
        self.story.until("it is in every mempool", ACT_LIMIT, || {
            all(running.iter().copied(), |peer| peer.has_in_mempool(&txid))
        })?;
        miner.mine(1, &key.address()?)?;
        self.story.say(format!("{} mines it", miner.name));
        self.agree(height)?;
        self.story.until("every mempool is empty again", ACT_LIMIT, || {
            all(running.iter().copied(), |peer| Ok(!peer.has_in_mempool(&txid)?))
        })?;
        Ok(change)
    }

    /// Shares a new file from one peer and waits until all that run have it.
    fn share(&self, from: usize, name: &str, size: usize) -> anyhow::Result<file::Shared> {
        let running: Vec<&Peer> = self.peers.iter().filter(|peer| peer.runs()).collect();
        let seed = &self.peers[from];
        let size_text = crate::output::bytes(size as u64);
        self.story
            .title(format!("A file of {size_text} goes from one to all, and between all"));
        let file = file::Shared::create(&seed.downloads(), name, size)?;
        self.story.say(format!(
            "{} shares {}, {}",
            seed.name,
            file.name,
            short(&file.info_hash)
        ));
        for peer in &running {
            let others = running.iter().filter(|other| other.name != peer.name);
            peer.add_torrent(
                &file,
                &others
                    .map(|other| other.torrent_addr())
                    .collect::<Result<Vec<_>, _>>()?,
            )?;
        }
        self.story
            .progress(&format!("all {} have it", running.len()), ACT_LIMIT, || {
                let mut done = 0.0;
                for peer in &running {
                    done += peer.torrent_progress(&file.info_hash)?;
                }
                Ok(done / running.len() as f64)
            })?;
        for peer in &running {
            file.verify(&peer.downloads())?;
            if peer.name != seed.name {
                let (down, up) = peer.torrent_bytes(&file.info_hash)?;
                let (down, up) = (crate::output::bytes(down), crate::output::bytes(up));
                self.story.say(format!(
                    "{} fetched {down}, gave {up} to others; its SHA-256 is right",
                    peer.name
                ));
            }
        }
        Ok(file)
    }

    /// One peer fetches a file that the others have.
    fn fetch(&self, index: usize, file: &file::Shared) -> anyhow::Result<()> {
        let peer = &self.peers[index];
        let others = self.peers.iter().filter(|other| other.name != peer.name);
        let addrs = others.map(Peer::torrent_addr).collect::<Result<Vec<_>, _>>()?;
        peer.add_torrent(file, &addrs)?;
        let what = format!("{} has the file that it missed", peer.name);
        self.story
            .progress(&what, ACT_LIMIT, || peer.torrent_progress(&file.info_hash))?;
        file.verify(&peer.downloads())
    }

    fn lose_one_and_go_on(&mut self, key: &money::Key, coin: money::Coin) -> anyhow::Result<()> {
        let lost = self.peers.len() - 1;
        let name = self.peers[lost].name.clone();
        self.story
            .title(format!("{name} is killed; the others go on without it"));
        self.peers[lost].kill()?;
        self.story.say(format!("{name} got SIGKILL in the middle of its life"));
        let height = u64::from(FIRST_BLOCKS) + 2;
        self.flood(key, &coin, 0, height)?;
        let second = self.share(1, "second", SECOND_FILE)?;

        self.story.title(format!("{name} comes back and catches up"));
        self.peers[lost].restart()?;
        self.peers[lost].wait_ready(&self.story)?;
        self.story.say(format!(
            "{name} opened its data directory and found everything it had verified"
        ));
        self.agree(height)?;
        self.fetch(lost, &second)
    }

    fn stop(&mut self) {
        if self.peers.iter().any(Peer::runs) {
            self.story.title("The peers stop");
        }
        for peer in &mut self.peers {
            peer.ask_to_stop();
        }
        for peer in &mut self.peers {
            peer.wait_stopped();
        }
    }
}

fn all<'a>(
    peers: impl IntoIterator<Item = &'a Peer>,
    mut test: impl FnMut(&Peer) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    for peer in peers {
        if !test(peer)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The links of a ring, and of chords that skip one peer, so that no single loss cuts it.
fn ring_with_chords(count: usize) -> Vec<(usize, usize)> {
    let mut links: Vec<(usize, usize)> = (0..count).map(|index| (index, (index + 1) % count)).collect();
    if count > 3 {
        links.extend(
            (0..count)
                .step_by(2)
                .map(|index| (index, (index + 2) % count))
                .filter(|(from, to)| from < to),
        );
    }
    links
}

/// The first characters of a hash, enough to recognise it.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// A directory that goes with its owner.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn create() -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("dunlin-flock-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::ring_with_chords;

    #[test]
    fn no_single_loss_cuts_the_ring() {
        for count in 3..=32 {
            let links = ring_with_chords(count);
            for lost in 0..count {
                let start = (lost + 1) % count;
                let mut seen = vec![start];
                let mut next = 0;
                while let Some(&here) = seen.get(next) {
                    next += 1;
                    for &(from, to) in &links {
                        for (from, to) in [(from, to), (to, from)] {
                            if from == here && to != lost && !seen.contains(&to) {
                                seen.push(to);
                            }
                        }
                    }
                }
                assert_eq!(seen.len(), count - 1, "{count} peers without {lost}");
            }
        }
    }
}
