//! Rounds in which all clients do a piece of work in turn, and the table of what came of it.

use anyhow::Result;

use super::peers::Client;
use crate::cost::Sample;
use crate::{Args, Side, Spread};

/// A client and its rounds.
struct Entry {
    client: Client,
    samples: Vec<Sample>,
}

/// Whoever can be started.
pub(super) struct Contest {
    entries: Vec<Entry>,
}

impl Contest {
    /// Runs `work` for each client of `clients` in turn. A peer that is not there, or that fails, is named and left out;
    /// our own failure ends the contest.
    pub(super) fn run(
        args: &Args,
        clients: &[Client],
        rounds: usize,
        mut work: impl FnMut(Client) -> Result<Sample>,
    ) -> Result<Self> {
        let wanted = |client: &Client| {
            args.only
                .is_none_or(|only| (only == Side::Dunlin) == (*client == Client::Dunlin))
        };
        let mut entries: Vec<Entry> = clients
            .iter()
            .copied()
            .filter(wanted)
            .map(|client| Entry {
                client,
                samples: Vec::new(),
            })
            .collect();
        for _ in 0..args.rounds.unwrap_or(rounds) {
            let mut missing = Vec::new();
            for entry in &mut entries {
                match work(entry.client) {
                    Ok(sample) => entry.samples.push(sample),
                    Err(error) if entry.client == Client::Dunlin => return Err(error),
                    Err(error) => {
                        println!("\n{} is left out: {error:#}", entry.client.name());
                        missing.push(entry.client);
                    }
                }
            }
            entries.retain(|entry| !missing.contains(&entry.client));
        }
        Ok(Self { entries })
    }

    /// Prints the figures of all, and ours as a share of the best other's; less is better in each of them.
    pub(super) fn report(&self, work: &str) {
        println!("\n{work}");
        print!("  {:<26}", "");
        for entry in &self.entries {
            print!(" {:>24}", entry.client.name());
        }
        println!(" {:>8}", "to best");
        let names = self.entries.iter().find_map(|entry| entry.samples.first());
        for (index, &(name, _)) in names.into_iter().flatten().enumerate() {
            print!("  {name:<26}");
            let (mut ours, mut best) = (None, None::<f64>);
            for entry in &self.entries {
                let spread = Spread::of(&entry.samples, index);
                let median = spread.as_ref().map(|spread| spread.median);
                match entry.client {
                    Client::Dunlin => ours = median,
                    _ => best = best.into_iter().chain(median).min_by(f64::total_cmp),
                }
                print!(" {:>24}", spread.map_or_else(String::new, |spread| spread.to_string()));
            }
            match (ours, best) {
                (Some(ours), Some(best)) if best > 0.0 => println!(" {:>8.2}", ours / best),
                _ => println!(),
            }
        }
    }
}
