//! Shows figures while they are measured: on a live screen, or as lines.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use crossterm::event::Event;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::engine::{Engine, Handle};
use super::keys::Pressed;
use super::terminal::{self, SIGTSTP, Screen as Terminal};
use crate::core::Snapshot;
use crate::identity::Keeper;
use crate::sink::screen::model::Names;
use crate::sink::screen::{About, Model, Palette, Screen, Step, draw, lines};
use crate::sink::text::TextOptions;

/// The first figures come after this time, so that there is something to see.
const FIRST: Duration = Duration::from_millis(20);

/// Ticks between two verdicts.
const JUDGE_EVERY: u64 = 2;

/// Ticks after which names are asked for anew.
const NAMES_STAY: u64 = 30;

/// Lines between two headings.
const HEADING_EVERY: u64 = 20;

/// Whether there can be a live screen: keys come from a terminal, and pictures go to one.
pub(super) fn has_terminal() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !dumb
}

/// What a tick asks for: the figures, and whether ended threads are forgotten after it.
async fn snapshot(handle: &Handle, forget: bool) -> anyhow::Result<Arc<Snapshot>> {
    let ask = move |engine: &mut Engine| {
        engine.look_at_open_waits();
        let snapshot = engine.core().snapshot();
        if forget {
            engine.core().forget_ended();
        }
        Arc::new(snapshot)
    };
    Ok(handle.ask(ask).await?)
}

/// The live screen.
pub(super) struct Live {
    terminal: Terminal,
    model: Model,
    screen: Screen,
    palette: Palette,
    every: Duration,
    /// Whether threads that have ended are forgotten after a tick: on a whole host they are many.
    forget: bool,
    ticks: u64,
}

impl Live {
    /// Opens the screen and shows that there is nothing yet.
    pub(super) fn open(about: About, every: Duration, forget: bool) -> anyhow::Result<Self> {
        let palette = Palette {
            colors: TextOptions::for_stdout().colors,
        };
        let mut live = Self {
            terminal: Terminal::open()?,
            model: Model::new(about),
            screen: Screen::default(),
            palette,
            every,
            forget,
            ticks: 0,
        };
        live.draw()?;
        Ok(live)
    }

    /// Shows what is measured, until the user has seen enough.
    pub(super) async fn run(mut self, handle: &Handle, keeper: &Keeper) -> anyhow::Result<()> {
        let mut events = terminal::events().context("cannot read the keyboard")?;
        let mut stop = signal(SignalKind::from_raw(SIGTSTP))?;
        let mut ticks = interval_at(Instant::now() + FIRST.min(self.every), self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => if !self.screen.paused {
                    self.tick(handle, keeper).await?;
                },
                _ = stop.recv() => self.terminal.suspend()?,
                event = events.recv() => {
                    let mut next = Some(event.context("the terminal is gone")?);
                    while let Some(event) = next {
                        if self.take(&event)? == Step::Quit {
                            return Ok(());
                        }
                        next = events.try_recv().ok();
                    }
                }
            }
            self.draw()?;
        }
    }

    async fn tick(&mut self, handle: &Handle, keeper: &Keeper) -> anyhow::Result<()> {
        let snapshot = snapshot(handle, self.forget).await?;
        if self.ticks.is_multiple_of(NAMES_STAY) {
            self.model.forget_names();
        }
        self.model.take(snapshot);
        let nameless = self.model.nameless();
        let mut known = keeper.known(nameless.clone()).await?;
        for tgid in nameless {
            let known = known.remove(&tgid).unwrap_or_default();
            let (name, unit) = (known.name, known.unit);
            self.model.name(tgid, Names { name, unit });
        }
        if self.ticks.is_multiple_of(JUDGE_EVERY) {
            self.model.judge();
        }
        self.ticks += 1;
        self.screen.refresh(&self.model);
        Ok(())
    }

    fn take(&mut self, event: &Event) -> anyhow::Result<Step> {
        match Pressed::from(event) {
            Pressed::Quit => return Ok(Step::Quit),
            Pressed::Suspend => self.terminal.suspend()?,
            Pressed::Key(key) => {
                let height = self.terminal.height();
                return Ok(self.screen.press(key, &self.model, height));
            }
            Pressed::Nothing => {}
        }
        Ok(Step::Stay)
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        let (screen, model, palette) = (&mut self.screen, &self.model, self.palette);
        self.terminal
            .draw(|buffer| draw(buffer, screen, model, palette))
    }
}

/// Prints a line each `every`. Ends only when nobody reads them any more.
pub(super) async fn print(
    handle: &Handle,
    every: Duration,
    forget: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut before = snapshot(handle, forget).await?;
    let start_ns = before.start_ns;
    let mut ticks = interval_at(Instant::now() + every, every);
    for number in 0.. {
        ticks.tick().await;
        let now = snapshot(handle, forget).await?;
        let heading = if u64::is_multiple_of(number, HEADING_EVERY) {
            lines::heading()
        } else {
            String::new()
        };
        let line = heading + &lines::line(&now.since(&before), start_ns);
        match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.context("cannot write a line of figures")?,
        }
        before = now;
    }
    Ok(())
}
