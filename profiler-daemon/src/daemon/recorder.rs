//! A recording under way: sees to the names of processes, and writes what a flight recorder keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::engine::{Engine, Handle};
use super::reporting;
use super::trigger::{Condition, Watch};
use crate::identity::Keeper;
use crate::recording::facts::Process;
use crate::recording::{Facts, Recorder, SavedFile, Summary};

/// Names of processes are gathered this often: who has ended by the end of the recording would have none.
pub(super) const NAMES_EVERY: Duration = Duration::from_secs(30);

/// Conditions are looked at this often, and whether the recording goes on.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Least time from one file of a flight recorder to the next.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Processes whose names are kept.
const MAX_NAMES: usize = 1 << 16;

/// A recording under way.
pub(super) struct Recording {
    pub(super) handle: Handle,
    keeper: Keeper,
    pub(super) recorder: Recorder,
    /// Names of processes, those that have ended included.
    pub(super) processes: BTreeMap<u32, Process>,
    named_at: Option<Instant>,
    /// When a flight recorder last wrote.
    saved_at: Option<Instant>,
}

impl Recording {
    pub(super) fn new(handle: Handle, keeper: Keeper, recorder: Recorder) -> Self {
        Self {
            handle,
            keeper,
            recorder,
            processes: BTreeMap::new(),
            named_at: None,
            saved_at: None,
        }
    }

    /// Has the recording know what processes are called and belong to, if it is time for that.
    pub(super) async fn gather_names(&mut self) -> anyhow::Result<()> {
        if self.named_at.is_some_and(|at| at.elapsed() < NAMES_EVERY) {
            return Ok(());
        }
        self.gather_names_now().await
    }

    /// The same, however lately it was done.
    pub(super) async fn gather_names_now(&mut self) -> anyhow::Result<()> {
        self.named_at = Some(Instant::now());
        let tgids = |engine: &mut Engine| engine.core().processes().collect::<BTreeSet<u32>>();
        let tgids = self.handle.ask(tgids).await?.into_iter();
        let known = self.keeper.known(tgids.take(MAX_NAMES).collect()).await?;
        for (tgid, known) in known {
            if self.processes.len() < MAX_NAMES || self.processes.contains_key(&tgid) {
                self.processes.insert(tgid, reporting::process(known));
            }
        }
        self.recorder.facts(Facts {
            processes: self.processes.clone(),
            ..Facts::default()
        });
        Ok(())
    }

    /// Gathers names again and again; ends only by an error.
    pub(super) async fn keep_gathering(&mut self) -> anyhow::Error {
        loop {
            if let Err(error) = self.gather_names_now().await {
                return error;
            }
            tokio::time::sleep(NAMES_EVERY).await;
        }
    }

    /// Ends the recording with what is known of the run, which comes back with the names of all.
    pub(super) async fn finish(mut self, mut facts: Facts) -> anyhow::Result<(Facts, Summary)> {
        // Those of the report are the newest.
        self.processes.append(&mut facts.processes);
        facts.processes = self.processes;
        self.handle.ask(Engine::end_recording).await?;
        self.recorder.facts(facts.clone());
        Ok((facts, self.recorder.finish()?))
    }

    /// A condition that is met, if it is time to write again.
    pub(super) async fn look(&self, watch: &mut Watch) -> anyhow::Result<Option<Condition>> {
        if watch.is_empty() {
            return Ok(None);
        }
        let mut its = watch.clone();
        let (met, its) = self
            .handle
            .ask(move |engine| (its.look(engine.core()), its))
            .await?;
        *watch = its;
        Ok(met.filter(|_| self.too_early().is_none()))
    }

    /// How long it is until the next file may be written, if that is not now.
    pub(super) fn too_early(&self) -> Option<Duration> {
        let since = self.saved_at?.elapsed();
        SAVE_EVERY.checked_sub(since).filter(|left| !left.is_zero())
    }

    /// Writes what a flight recorder keeps: to this file, or to the next of a series.
    pub(super) async fn save(&mut self, path: Option<PathBuf>) -> Result<SavedFile, String> {
        self.saved_at = Some(Instant::now());
        self.recorder.save(path).await
    }
}
