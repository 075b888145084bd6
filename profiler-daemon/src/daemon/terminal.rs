//! The terminal while it is a screen: whatever happens, it is given back as it was.

use std::io::{Stdout, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use crossterm::event::{self, Event};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use rustix::process::{Signal, getpid, getppid, getsid, kill_process};
use tokio::sync::mpsc;

/// Whether the terminal is a screen now: the panic hook must know, too.
static IS_SCREEN: AtomicBool = AtomicBool::new(false);

/// `SIGTSTP` (signal(7)), of which tokio has no name.
pub(super) const SIGTSTP: i32 = 20;

/// How soon the thread that reads keys notices that nobody wants them any more.
const PATIENCE: Duration = Duration::from_millis(100);

/// The terminal as a screen, until it is dropped.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Makes the terminal a screen.
    pub(super) fn open() -> anyhow::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // The message must not go to a screen that is about to vanish.
                leave();
                before(panic);
            }));
        });
        enter().context("cannot make the terminal a screen: --no-screen does without")?;
        match Terminal::new(CrosstermBackend::new(stdout())) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                leave();
                Err(error).context("cannot draw on the terminal: --no-screen does without")
            }
        }
    }

    /// Draws; only what has changed goes to the terminal, at one stroke.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Buffer)) -> anyhow::Result<()> {
        let backend = self.terminal.backend_mut();
        execute!(backend, BeginSynchronizedUpdate)?;
        let drawn = self.terminal.draw(|frame| draw(frame.buffer_mut()));
        let is_whole = drawn.map(|_| ());
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)?;
        is_whole.context("cannot draw on the terminal")
    }

    /// Lines of the terminal.
    pub(super) fn height(&self) -> u16 {
        self.terminal.size().map_or(24, |size| size.height)
    }

    /// Gives the terminal back and stops, as a shell's user expects of Ctrl-Z; goes on when it is told to.
    pub(super) fn suspend(&mut self) -> anyhow::Result<()> {
        if !has_shell() {
            return Ok(());
        }
        leave();
        // All threads stop here.
        kill_process(getpid(), Signal::STOP).context("cannot suspend")?;
        enter().context("cannot make the terminal a screen again")?;
        // A new one draws all of it. Having the old one cleared would ask the terminal where its cursor is.
        execute!(stdout(), Clear(ClearType::All))?;
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> std::io::Result<()> {
    enable_raw_mode()?;
    IS_SCREEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, cursor::Hide)
}

fn leave() {
    if IS_SCREEN.swap(false, Ordering::SeqCst) {
        // There is nobody left to tell of a terminal that is gone.
        let _ = execute!(stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Whether there is somebody in this session who could let a stopped process go on: without, the kernel
/// ignores Ctrl-Z, too (POSIX: orphaned process groups).
fn has_shell() -> bool {
    let Some(parent) = getppid() else {
        return false;
    };
    matches!((getsid(None), getsid(Some(parent))), (Ok(own), Ok(its)) if own == its)
}

/// Keys and changes of the terminal's size, until the receiver is dropped.
pub(super) fn events() -> std::io::Result<mpsc::UnboundedReceiver<Event>> {
    let (sender, events) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("keys".into())
        .spawn(move || {
            while !sender.is_closed() {
                match event::poll(PATIENCE) {
                    Ok(false) => {}
                    Ok(true) => {
                        let Ok(event) = event::read() else { return };
                        if sender.send(event).is_err() {
                            return;
                        }
                    }
                    // The terminal is gone.
                    Err(_) => return,
                }
            }
        })?;
    Ok(events)
}
