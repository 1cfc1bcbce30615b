//! What no chain engine can do without, measured on this machine in this run.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use dunlin_testkit::bench_chain::BenchChain;
use sha2::{Digest, Sha256};

/// Batches, of which the median counts: others may use the machine meanwhile.
const BATCHES: usize = 101;
const VERIFICATIONS: u32 = 50;
const HASHED: usize = 1 << 20;

/// Processor time that a sync needs at least.
pub(super) struct Floors {
    verification: Duration,
    verifications: u64,
    hashing: Duration,
    bytes: u64,
}

impl Floors {
    pub(super) fn measure(chain: &BenchChain) -> Result<Self> {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&[7; 32])?;
        let (public, message) = (secret.public_key(&secp), Message::from_digest([8; 32]));
        let signature = secp.sign_ecdsa(&message, &secret);
        let mut failed = Ok(());
        let verification = median(|| {
            for _ in 0..VERIFICATIONS {
                failed = failed.and(secp.verify_ecdsa(&message, &signature, &public));
            }
        });
        failed?;
        let data = vec![9; HASHED];
        let hashing = median(|| {
            std::hint::black_box(Sha256::digest(std::hint::black_box(&data)));
        });
        Ok(Self {
            verification: verification / VERIFICATIONS,
            verifications: chain.totals.verifications,
            hashing: hashing.mul_f64(chain.totals.bytes as f64 / HASHED as f64),
            bytes: chain.totals.bytes,
        })
    }

    fn signatures(&self) -> Duration {
        self.verification.mul_f64(self.verifications as f64)
    }

    /// Every signature verified, and every byte hashed twice: for the transaction's id and with its witness.
    pub(super) fn full_sync(&self) -> Duration {
        self.signatures() + self.hashing * 2
    }
}

impl fmt::Display for Floors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} signature verifications of {:.1} us = {:.1} s CPU; SHA-256 of all bytes, twice = {:.1} s CPU; \
             blocks {} MiB",
            self.verifications,
            self.verification.as_secs_f64() * 1e6,
            self.signatures().as_secs_f64(),
            (self.hashing * 2).as_secs_f64(),
            self.bytes >> 20
        )
    }
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[BATCHES / 2]
}
