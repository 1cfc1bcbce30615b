//! When to announce to which tracker (BEP 3, BEP 12). The program carries the announces out.

use std::time::Duration;

use dunlin_peer::Now;
use rand::Rng;
use rand::seq::SliceRandom;

use crate::tracker::{Event, Response, TrackerError};

/// First pause after every tracker failed; doubled with each full round of failures.
const RETRY_FIRST: Duration = Duration::from_secs(15);
/// Longest pause after every tracker failed.
const RETRY_MAX: Duration = Duration::from_secs(30 * 60);
/// Addresses asked for in one announce.
const NUM_WANT: u32 = 80;

/// One tracker of a tier.
#[derive(Clone, Debug)]
pub(crate) struct TrackerState {
    /// The announce URL.
    pub(crate) url: String,
    /// The tracker's last word, when it was a failure or a warning.
    pub(crate) message: Option<String>,
    /// Peers with everything, as the tracker counts.
    pub(crate) seeders: Option<u32>,
    /// Peers without.
    pub(crate) leechers: Option<u32>,
    /// It answered the last announce that it got.
    pub(crate) working: bool,
    tracker_id: Option<Vec<u8>>,
}

/// An announce to make now.
#[derive(Debug)]
pub(crate) struct Due {
    /// Whom to ask.
    pub(crate) url: String,
    /// What to say.
    pub(crate) event: Option<Event>,
    /// The tracker's own token.
    pub(crate) tracker_id: Option<Vec<u8>>,
    /// How many addresses to ask for.
    pub(crate) num_want: u32,
}

/// The trackers of a torrent and the state of its announces: one announce is on its way at a time, through the
/// tiers in order until one tracker answers.
#[derive(Debug)]
pub(crate) struct Announcer {
    tiers: Vec<Vec<TrackerState>>,
    /// Which tracker is next, or is being asked.
    cursor: (usize, usize),
    pending: bool,
    next: Now,
    started: bool,
    completed_due: bool,
    rounds_failed: u32,
}

impl Announcer {
    /// Trackers in tiers; the order within a tier is drawn by lot (BEP 12).
    pub(crate) fn new(tiers: &[Vec<String>], rng: &mut impl Rng) -> Self {
        let mut tiers: Vec<Vec<TrackerState>> = tiers
            .iter()
            .map(|tier| tier.iter().map(|url| TrackerState::new(url)).collect())
            .collect();
        tiers.retain(|tier: &Vec<TrackerState>| !tier.is_empty());
        for tier in &mut tiers {
            tier.shuffle(rng);
        }
        Self {
            tiers,
            cursor: (0, 0),
            pending: false,
            next: Now::default(),
            started: false,
            completed_due: false,
            rounds_failed: 0,
        }
    }

    /// Every tracker, tier by tier.
    pub(crate) fn trackers(&self) -> impl Iterator<Item = &TrackerState> {
        self.tiers.iter().flatten()
    }

    /// When the next announce is due; `None` while one is on its way or there is no tracker.
    pub(crate) fn next_due(&self) -> Option<Now> {
        (!self.pending && !self.tiers.is_empty()).then_some(self.next)
    }

    /// The announce that is due at `now`, if one is; it counts as on its way then.
    pub(crate) fn take_due(&mut self, now: Now, wants_peers: bool) -> Option<Due> {
        if self.next_due()? > now {
            return None;
        }
        let tracker = self.tiers.get(self.cursor.0)?.get(self.cursor.1)?;
        let event = if !self.started {
            Some(Event::Started)
        } else if self.completed_due {
            Some(Event::Completed)
        } else {
            None
        };
        self.pending = true;
        Some(Due {
            url: tracker.url.clone(),
            event,
            tracker_id: tracker.tracker_id.clone(),
            num_want: if wants_peers { NUM_WANT } else { 0 },
        })
    }

    /// The download just finished: say so soon.
    pub(crate) fn completed(&mut self, now: Now) {
        if self.started {
            self.completed_due = true;
            self.next = now;
        }
    }

    /// The last word to the tracker that knows us, and a fresh start for the next time.
    pub(crate) fn stop(&mut self) -> Option<Due> {
        let was_started = std::mem::take(&mut self.started);
        self.pending = false;
        self.completed_due = false;
        self.next = Now::default();
        let tracker = self.trackers().find(|tracker| tracker.working)?;
        was_started.then(|| Due {
            url: tracker.url.clone(),
            event: Some(Event::Stopped),
            tracker_id: tracker.tracker_id.clone(),
            num_want: 0,
        })
    }

    /// An announce came back. Answers to announces that are no longer waited for change nothing.
    pub(crate) fn answered(&mut self, now: Now, url: &str, result: &Result<Response, TrackerError>) {
        let at_cursor = self
            .tiers
            .get_mut(self.cursor.0)
            .and_then(|tier| tier.get_mut(self.cursor.1));
        let Some(tracker) = at_cursor.filter(|tracker| self.pending && tracker.url == url) else {
            return;
        };
        self.pending = false;
        match result {
            Ok(response) => {
                tracker.working = true;
                tracker.message = response.warning.clone();
                tracker.seeders = response.seeders;
                tracker.leechers = response.leechers;
                if response.tracker_id.is_some() {
                    tracker.tracker_id = response.tracker_id.clone();
                }
                // BEP 12: a tracker that answers moves to the front of its tier.
                let (tier, place) = self.cursor;
                if let Some(tier) = self.tiers.get_mut(tier)
                    && place < tier.len()
                {
                    tier[..=place].rotate_right(1);
                }
                self.cursor = (0, 0);
                if self.started {
                    self.completed_due = false;
                }
                self.started = true;
                self.rounds_failed = 0;
                let pause = response.interval.max(response.min_interval.unwrap_or_default());
                self.next = if self.completed_due { now } else { now + pause };
            }
            Err(error) => {
                tracker.working = false;
                tracker.message = Some(error.to_string());
                self.advance(now);
            }
        }
    }

    /// On to the next tracker; after the last, a pause.
    fn advance(&mut self, now: Now) {
        let (tier, place) = self.cursor;
        self.next = now;
        if self.tiers.get(tier).is_some_and(|tier| place + 1 < tier.len()) {
            self.cursor = (tier, place + 1);
        } else if tier + 1 < self.tiers.len() {
            self.cursor = (tier + 1, 0);
        } else {
            self.cursor = (0, 0);
            let pause = RETRY_FIRST
                .saturating_mul(1 << self.rounds_failed.min(12))
                .min(RETRY_MAX);
            self.rounds_failed = self.rounds_failed.saturating_add(1);
            self.next = now + pause;
        }
    }
}

impl TrackerState {
    fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            message: None,
            seeders: None,
            leechers: None,
            working: false,
            tracker_id: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn at(secs: u64) -> Now {
        Now::from_unix_secs(secs)
    }

    fn answer(interval: u64) -> Result<Response, TrackerError> {
        Ok(Response {
            interval: Duration::from_secs(interval),
            min_interval: None,
            seeders: Some(1),
            leechers: Some(2),
            peers: Vec::new(),
            warning: None,
            tracker_id: Some(b"token".to_vec()),
        })
    }

    fn announcer(tiers: &[&[&str]]) -> Announcer {
        let tiers: Vec<Vec<String>> = tiers
            .iter()
            .map(|tier| tier.iter().map(|url| (*url).to_owned()).collect())
            .collect();
        Announcer::new(&tiers, &mut ChaCha8Rng::seed_from_u64(1))
    }

    #[test]
    fn a_whole_life_with_one_tracker() {
        let mut announcer = announcer(&[&["http://a/"]]);
        let due = announcer.take_due(at(10), true).unwrap();
        assert_eq!((due.event, due.num_want), (Some(Event::Started), NUM_WANT));
        assert!(announcer.take_due(at(10), true).is_none(), "one at a time");
        announcer.answered(at(11), "http://a/", &answer(1800));
        assert_eq!(announcer.next_due(), Some(at(1811)));
        announcer.completed(at(100));
        let due = announcer.take_due(at(100), false).unwrap();
        assert_eq!((due.event, due.num_want), (Some(Event::Completed), 0));
        assert_eq!(due.tracker_id.as_deref(), Some(&b"token"[..]));
        announcer.answered(at(101), "http://a/", &answer(1800));
        let due = announcer.take_due(at(1901), false).unwrap();
        assert_eq!(due.event, None);
        announcer.answered(at(1901), "http://a/", &answer(1800));
        assert_eq!(announcer.stop().unwrap().event, Some(Event::Stopped));
        assert!(announcer.stop().is_none());
        assert_eq!(announcer.take_due(at(1902), true).unwrap().event, Some(Event::Started));
    }

    #[test]
    fn tiers_are_tried_in_order_and_the_one_that_answers_leads_its_tier() {
        let mut announcer = announcer(&[&["http://a/"], &["http://b/", "http://c/"]]);
        let mut tried = Vec::new();
        for _ in 0..2 {
            let due = announcer.take_due(at(0), true).unwrap();
            announcer.answered(at(0), &due.url, &Err(TrackerError::Timeout));
            tried.push(due.url);
        }
        let third = announcer.take_due(at(0), true).unwrap();
        announcer.answered(at(0), &third.url, &answer(60));
        tried.push(third.url.clone());
        assert_eq!(tried[0], "http://a/");
        assert_eq!(announcer.tiers[1][0].url, third.url);
        assert_eq!(
            announcer.take_due(at(60), true).unwrap().url,
            "http://a/",
            "each round begins at the first tier"
        );
    }

    #[test]
    fn when_all_fail_the_pauses_grow() {
        let mut announcer = announcer(&[&["http://a/"]]);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let due = announcer.take_due(now, true).unwrap();
            announcer.answered(now, &due.url, &Err(TrackerError::Timeout));
            let next = announcer.next_due().unwrap();
            pauses.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [15, 30, 60, 120, 240]);
        assert!(announcer.stop().is_none(), "no tracker ever heard of us");
    }

    #[test]
    fn an_answer_that_nobody_waits_for_changes_nothing() {
        let mut announcer = announcer(&[&["http://a/"]]);
        announcer.answered(at(0), "http://a/", &answer(60));
        assert_eq!(announcer.next_due(), Some(Now::default()));
    }
}
