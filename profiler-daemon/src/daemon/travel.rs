//! `schedscope report --screen`: the live screen at any moment of a recording.
//!
//! A thread reads the recording and takes pictures; the screen shows what there is of them meanwhile.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use crossterm::event::Event;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::keys::Pressed;
use super::live;
use super::replay::{Opened, tell_damage};
use super::terminal::{self, SIGTSTP, Screen as Terminal};
use crate::cli::ReportOn;
use crate::core::Core;
use crate::exit::Failure;
use crate::recording::facts::{Facts, Target};
use crate::recording::{Damage, Header};
use crate::sink::screen::film::FINEST_NS;
use crate::sink::screen::model::Names;
use crate::sink::screen::view::Place;
use crate::sink::screen::{About, Film, Model, Palette, Screen, Step, Travel, draw_recorded};
use crate::sink::text::TextOptions;

/// Time between two pictures of the screen while something moves.
const REFRESH: Duration = Duration::from_millis(100);

/// Runs the command.
pub(super) fn travel(args: &ReportOn) -> Result<u8, Failure> {
    if !live::has_terminal() {
        return Err(Failure::usage(
            "--screen needs a terminal to show it on and to take keys from: leave it out for a report"
                .to_owned(),
        ));
    }
    let opened = Opened::new(&args.file, &args.choice)?.quietly();
    let about = about(&opened.header, &opened.targets);
    let read = Arc::new(Mutex::new(Read::default()));
    let traveller = Traveller {
        terminal: Terminal::open()?,
        read: Arc::clone(&read),
        model: Model::new(about),
        names_known: 0,
        screen: Screen::default(),
        travel: Travel::new(u64::try_from(args.tick.as_nanos()).unwrap_or(u64::MAX)),
        palette: Palette {
            colors: TextOptions::for_stdout().colors,
        },
    };
    // It ends with the process: nobody waits for the rest of a recording that nobody looks at.
    std::thread::Builder::new()
        .name("read".into())
        .spawn(move || photograph(opened, &read))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let damage = runtime.block_on(traveller.run())?;
    Ok(tell_damage(&args.file, &damage))
}

fn about(header: &Header, targets: &[Target]) -> About {
    let words = targets.iter().map(|target| match target.value.as_str() {
        "" => "the whole host".to_owned(),
        value => format!("{} {value}", target.kind),
    });
    let targets = words.collect::<Vec<_>>().join(", ");
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        title: format!("{targets} on {}", header.host),
        wakeups: header.wakeups,
    }
}

/// What was read of a recording so far.
#[derive(Default)]
struct Read {
    film: Film,
    facts: Facts,
    damage: Damage,
    /// Why nothing can be shown.
    failure: Option<Failure>,
}

fn lock(read: &Mutex<Read>) -> MutexGuard<'_, Read> {
    read.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a recording to its end.
fn photograph(opened: Opened, read: &Mutex<Read>) {
    let look = |core: &Core, facts: &Facts| {
        let is_wanted = lock(read).film.wants(core.watermark_ns());
        if is_wanted {
            let snapshot = core.snapshot();
            let mut read = lock(read);
            read.film.add(snapshot);
            if read.facts.processes.len() != facts.processes.len() {
                read.facts = facts.clone();
            }
        }
    };
    let replayed = opened.replay(true, |replay| replay.with_looks(FINEST_NS, look));
    let mut read = lock(read);
    match replayed {
        Ok((core, facts, damage)) => {
            if core.watermark_ns() > read.film.end_ns() {
                read.film.add(core.snapshot());
            }
            read.facts = facts;
            read.damage = damage;
            read.film.is_whole = true;
        }
        Err(failure) => read.failure = Some(failure),
    }
}

/// The screen, and where it is.
struct Traveller {
    terminal: Terminal,
    read: Arc<Mutex<Read>>,
    model: Model,
    /// How many processes have names.
    names_known: usize,
    screen: Screen,
    travel: Travel,
    palette: Palette,
}

impl Traveller {
    /// Until the user has seen enough; returns what is missing of the recording.
    async fn run(mut self) -> Result<Damage, Failure> {
        let mut events = terminal::events().context("cannot read the keyboard")?;
        let mut stop = signal(SignalKind::from_raw(SIGTSTP))?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut since = Instant::now();
        let mut is_settled = false;
        loop {
            tokio::select! {
                _ = ticks.tick(), if !is_settled => {}
                _ = terminate.recv() => return Ok(self.damage()),
                _ = stop.recv() => self.terminal.suspend()?,
                event = events.recv() => {
                    let mut next = Some(event.context("the terminal is gone")?);
                    while let Some(event) = next {
                        if self.take(&event)? == Step::Quit {
                            return Ok(self.damage());
                        }
                        next = events.try_recv().ok();
                    }
                }
            }
            // Time in which nothing moved is none.
            let elapsed = if is_settled {
                Duration::ZERO
            } else {
                since.elapsed()
            };
            since = Instant::now();
            is_settled = self.go_on(elapsed)?;
        }
    }

    fn damage(&self) -> Damage {
        lock(&self.read).damage
    }

    fn take(&mut self, event: &Event) -> io::Result<Step> {
        match Pressed::from(event) {
            Pressed::Quit => return Ok(Step::Quit),
            Pressed::Suspend => self.terminal.suspend().map_err(io::Error::other)?,
            Pressed::Key(key) => {
                let is_for_screen = self.screen.typing || self.screen.help;
                if is_for_screen || !self.travel.press(key, &lock(&self.read).film) {
                    let height = self.terminal.height();
                    return Ok(self.screen.press(key, &self.model, height));
                }
            }
            Pressed::Nothing => {}
        }
        Ok(Step::Stay)
    }

    /// Shows where it is after so much time; returns whether nothing changes until a key is pressed.
    fn go_on(&mut self, elapsed: Duration) -> Result<bool, Failure> {
        let mut read = lock(&self.read);
        if let Some(failure) = read.failure.take() {
            return Err(failure);
        }
        let Read { film, facts, .. } = &*read;
        let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.travel.wait(elapsed_ns, film);
        if self.names_known != facts.processes.len() {
            self.names_known = facts.processes.len();
            // Trends of units are known by their names.
            self.model.rewind();
            for (&tgid, process) in &facts.processes {
                let (name, unit) = (process.name.clone(), process.unit.clone());
                self.model.name(tgid, Names { name, unit });
            }
        }
        let (at_ns, tick_ns) = (self.travel.at_ns(film), self.travel.tick_ns(film));
        film.show(&mut self.model, at_ns, tick_ns);
        self.screen.refresh(&self.model);
        let place = Place {
            film,
            travel: &self.travel,
        };
        let (screen, model, palette) = (&mut self.screen, &self.model, self.palette);
        self.terminal
            .draw(|buffer| draw_recorded(buffer, screen, model, palette, place))?;
        Ok(film.is_whole && !self.travel.playing)
    }
}
