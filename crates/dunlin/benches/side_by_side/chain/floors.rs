//! What no chain engine can do without, measured on this machine in this run.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey, VerifyOnly};
use dunlin_testkit::bench_chain::BenchChain;
use sha2::{Digest, Sha256};

/// Batches, of which the median counts: others may use the machine meanwhile.
const BATCHES: usize = 101;
/// Signatures of as many keys in one batch.
const VERIFICATIONS: u8 = 50;
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
        let signatures: Vec<Signed> = (1..=VERIFICATIONS).map(Signed::new).collect::<Result<_>>()?;
        // On all cores at once, as in a sync: what a core does alone it does faster.
        let cores = std::thread::available_parallelism()?.get();
        let mut each = std::thread::scope(|scope| {
            let running: Vec<_> = (0..cores).map(|_| scope.spawn(|| verify(&signatures))).collect();
            let done = running
                .into_iter()
                .map(|thread| thread.join().expect("a verification does not panic"));
            done.collect::<Result<Vec<Duration>>>()
        })?;
        each.sort();
        let verification = each[cores / 2];
        let data = vec![9; HASHED];
        let hashing = median(|| {
            std::hint::black_box(Sha256::digest(std::hint::black_box(&data)));
        });
        Ok(Self {
            verification: verification / u32::from(VERIFICATIONS),
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

/// A signature as a block holds it.
struct Signed {
    public: [u8; 33],
    message: [u8; 32],
    signature: Vec<u8>,
}

impl Signed {
    fn new(number: u8) -> Result<Self> {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&[number; 32])?;
        let message = [number ^ 0x55; 32];
        let signature = secp.sign_ecdsa(&Message::from_digest(message), &secret);
        Ok(Self {
            public: secret.public_key(&secp).serialize(),
            message,
            signature: signature.serialize_der().to_vec(),
        })
    }

    fn verify(&self, secp: &Secp256k1<VerifyOnly>) -> Result<()> {
        let public = PublicKey::from_slice(&self.public)?;
        let signature = Signature::from_der(&self.signature)?;
        Ok(secp.verify_ecdsa(&Message::from_digest(self.message), &signature, &public)?)
    }
}

/// The time for one batch.
fn verify(signatures: &[Signed]) -> Result<Duration> {
    let secp = Secp256k1::verification_only();
    let mut failed = Ok(());
    let time = median(|| {
        for signed in signatures {
            if let Err(error) = signed.verify(&secp) {
                failed = Err(error);
            }
        }
    });
    failed.map(|()| time)
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
