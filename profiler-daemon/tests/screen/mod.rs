//! The live screen on a known history: what it shows, and what keys make of it.

use std::sync::Arc;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use schedscope::core::Snapshot;
use schedscope::sink::screen::model::{Names, Span};
use schedscope::sink::screen::view::Place;
use schedscope::sink::screen::{
    About, Film, Key, Level, Model, Palette, Row, Screen, Sort, Step, Travel, draw, draw_recorded,
    lines,
};

use crate::support::shop::{shop, shop_pictures};
use crate::support::{HOSTILE, expect_file, hostile};

const PLAIN: Palette = Palette { colors: false };
const COLORS: Palette = Palette { colors: true };

fn named(snapshots: impl IntoIterator<Item = Snapshot>) -> Model {
    let mut model = Model::new(About {
        version: "1.2.3".to_owned(),
        title: "pid 100".to_owned(),
        wakeups: true,
    });
    for snapshot in snapshots {
        model.take(Arc::new(snapshot));
        for tgid in model.nameless() {
            let (name, unit) = match tgid {
                100 => ("shop", "web.service"),
                500 => ("batch", "batch.service"),
                _ => ("", ""),
            };
            let (name, unit) = (name.to_owned(), unit.to_owned());
            model.name(tgid, Names { name, unit });
        }
    }
    model.judge();
    model
}

fn picture(screen: &mut Screen, model: &Model, palette: Palette, size: (u16, u16)) -> Buffer {
    let backend = TestBackend::new(size.0, size.1);
    let mut terminal = Terminal::new(backend).expect("a terminal in memory");
    let drawn = terminal.draw(|frame| draw(frame.buffer_mut(), screen, model, palette));
    drawn.expect("drawn").buffer.clone()
}

fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        for x in 0..buffer.area.width {
            line += buffer[(x, y)].symbol();
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn press(screen: &mut Screen, model: &Model, keys: &str) {
    for letter in keys.chars() {
        let key = match letter {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            '\u{8}' => Key::Backspace,
            'v' => Key::Down,
            '^' => Key::Up,
            letter => Key::Char(letter),
        };
        assert_eq!(screen.press(key, model, 24), Step::Stay, "{letter:?}");
    }
}

fn shown(screen: &Screen) -> Vec<&str> {
    screen.rows().iter().map(|row| row.name.as_str()).collect()
}

#[test]
fn it_looks_like_this() {
    let model = named([shop()]);
    let mut screen = Screen::default();
    screen.refresh(&model);
    let small = picture(&mut screen, &model, PLAIN, (80, 24));
    expect_file("tests/golden/screen-80x24.txt", &text(&small));
    let large = picture(&mut screen, &model, PLAIN, (200, 60));
    expect_file("tests/golden/screen-200x60.txt", &text(&large));
    press(&mut screen, &model, "\n");
    let detail = picture(&mut screen, &model, PLAIN, (80, 24));
    expect_file("tests/golden/screen-detail-80x24.txt", &text(&detail));
    press(&mut screen, &model, "?");
    let help = picture(&mut screen, &model, PLAIN, (80, 24));
    expect_file("tests/golden/screen-help-80x24.txt", &text(&help));
    press(&mut screen, &model, "x3i");
    let units = picture(&mut screen, &model, PLAIN, (80, 24));
    expect_file("tests/golden/screen-units-80x24.txt", &text(&units));
}

/// Names of threads, processes, units and targets that would move the cursor, turn the text around or not be
/// seen: on no screen is there more of them than a mark.
#[test]
fn hostile_names_do_nothing_to_the_terminal() {
    let text_of = |name: &&[u8]| String::from_utf8_lossy(name).into_owned();
    let names: Vec<String> = HOSTILE.iter().map(text_of).collect();
    for name in &names {
        let mut model = Model::new(About {
            version: "1.2.3".to_owned(),
            title: name.clone(),
            wakeups: true,
        });
        model.take(Arc::new(hostile().snapshot()));
        for tgid in model.nameless() {
            let (name, unit) = (name.clone(), name.clone());
            model.name(tgid, Names { name, unit });
        }
        model.judge();
        let mut screen = Screen::default();
        screen.refresh(&model);
        assert!(!screen.rows().is_empty());
        for keys in ["", "\n", "?", "x3", "i"] {
            press(&mut screen, &model, keys);
            for size in [(80, 24), (200, 60)] {
                let picture = picture(&mut screen, &model, PLAIN, size);
                for cell in &picture.content {
                    let is_bad = |c: char| {
                        c.is_control()
                            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                                | '\u{2060}'..='\u{206f}')
                    };
                    let symbol = cell.symbol();
                    assert!(
                        !symbol.contains(is_bad),
                        "{symbol:?} of {name:?} after {keys:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn before_there_is_anything_it_says_so() {
    let model = Model::new(About::default());
    let mut screen = Screen::default();
    let picture = text(&picture(&mut screen, &model, PLAIN, (80, 24)));
    assert!(picture.contains("Attaching"), "{picture}");
}

/// Whoever sees no colours loses nothing: the same letters stand in the same places.
#[test]
fn colors_only_repeat_what_letters_say() {
    let model = named([shop()]);
    let mut screen = Screen::default();
    screen.refresh(&model);
    let plain = picture(&mut screen, &model, PLAIN, (120, 40));
    let colored = picture(&mut screen, &model, COLORS, (120, 40));
    assert_eq!(text(&plain), text(&colored));
    let has_color = |style: Style| {
        use ratatui::style::Color;
        let colors = [style.fg, style.bg].into_iter().flatten();
        colors.into_iter().any(|color| color != Color::Reset)
    };
    assert!(!plain.content.iter().any(|cell| has_color(cell.style())));
    assert!(colored.content.iter().any(|cell| has_color(cell.style())));
}

#[test]
fn rows_are_sorted_filtered_and_grouped() {
    let model = named([shop()]);
    let mut screen = Screen::default();
    screen.refresh(&model);
    let all = screen.rows().len();
    assert!(all >= 3, "{:?}", shown(&screen));
    let hurt: Vec<u64> = screen.rows().iter().map(|row| row.p99_ns).collect();
    press(&mut screen, &model, "s");
    assert_eq!(screen.sort, Sort::P99);
    let mut p99: Vec<u64> = screen.rows().iter().map(|row| row.p99_ns).collect();
    assert!(p99.is_sorted_by(|a, b| a >= b), "{p99:?}");
    p99.sort_unstable();
    let mut hurt = hurt;
    hurt.sort_unstable();
    assert_eq!(p99, hurt, "the same rows in another order");
    press(&mut screen, &model, "S");
    assert_eq!(screen.sort, Sort::Hurt);

    let wanted = "shop-front";
    press(&mut screen, &model, &format!("/{}", wanted.to_uppercase()));
    assert!(screen.typing && !screen.rows().is_empty());
    assert!(shown(&screen).iter().all(|name| *name == wanted));
    press(&mut screen, &model, "zzz");
    assert!(screen.rows().is_empty());
    press(&mut screen, &model, "\u{8}\u{8}\u{8}\n");
    assert!(!screen.typing && !screen.rows().is_empty());
    press(&mut screen, &model, "\u{1b}");
    assert_eq!(screen.rows().len(), all);

    press(&mut screen, &model, "t");
    assert_eq!(screen.level, Level::Processes);
    assert_eq!(shown(&screen), ["shop"]);
    press(&mut screen, &model, "t");
    assert_eq!(shown(&screen), ["web.service"]);
    // The sum over threads is what their process and their unit have.
    let unit = screen.rows()[0].clone();
    press(&mut screen, &model, "ti");
    assert_eq!(screen.level, Level::Threads);
    let observed: u64 = screen.rows().iter().map(Row::observed_ns).sum();
    assert_eq!(unit.observed_ns(), observed);
    assert_eq!(unit.threads, screen.rows().len());
}

#[test]
fn the_chosen_row_stays_chosen_wherever_it_goes() {
    let model = named([shop()]);
    let mut screen = Screen::default();
    screen.refresh(&model);
    press(&mut screen, &model, "vv");
    let chosen = |screen: &Screen| {
        screen
            .chosen()
            .map(|place| screen.rows()[place].key.clone())
    };
    let key = chosen(&screen);
    for keys in ["s", "s", "i", "s", "i"] {
        press(&mut screen, &model, keys);
        assert_eq!(chosen(&screen), key, "after {keys}");
    }
    press(&mut screen, &model, "gS^");
    assert_eq!(screen.chosen(), Some(0));
}

#[test]
fn a_tick_has_what_was_new_and_all_has_the_whole() {
    let whole = shop();
    let mut model = named([whole.clone(), whole]);
    let sum = |model: &Model, span| model.total(span).figures.observed_ns();
    assert_eq!(sum(&model, Span::Tick), 0, "nothing happened in between");
    assert!(sum(&model, Span::Whole) > 0);
    model.take(Arc::new(shop()));
    let mut screen = Screen::default();
    screen.refresh(&model);
    assert!(screen.rows().is_empty());
    press(&mut screen, &model, "a");
    assert!(!screen.rows().is_empty());
}

#[test]
fn q_ends_and_help_takes_one_key() {
    let model = named([shop()]);
    let mut screen = Screen::default();
    press(&mut screen, &model, "?q");
    assert!(!screen.help);
    press(&mut screen, &model, "/q");
    assert_eq!(screen.filter, "q");
    press(&mut screen, &model, "\u{1b}");
    assert_eq!(screen.press(Key::Char('q'), &model, 24), Step::Quit);
}

#[test]
fn lines_have_the_columns_of_their_heading() {
    let snapshot = shop();
    let line = lines::line(&snapshot, snapshot.start_ns);
    expect_file(
        "tests/golden/lines.txt",
        &format!("{}{line}", lines::heading()),
    );
    assert_eq!(
        line.split_whitespace().count(),
        lines::heading().split_whitespace().count()
    );
    assert_eq!(line.chars().count(), lines::heading().chars().count());
}

/// A second in pictures of 100 ms.
fn film() -> Film {
    let mut film = Film::default();
    for picture in shop_pictures(100_000) {
        assert!(film.wants(picture.at_ns));
        film.add(picture);
    }
    film.is_whole = true;
    film
}

/// A screen at the beginning of a recording of a second.
struct Recorded {
    film: Film,
    travel: Travel,
    model: Model,
    screen: Screen,
}

impl Recorded {
    fn new() -> Self {
        let mut recorded = Self {
            film: film(),
            travel: Travel::new(MS_100),
            model: named([shop()]),
            screen: Screen::default(),
        };
        recorded.model.rewind();
        recorded.show();
        recorded
    }

    fn press(&mut self, keys: &str) -> u64 {
        for letter in keys.chars() {
            let key = match letter {
                '<' => Key::Left,
                '>' => Key::Right,
                letter => Key::Char(letter),
            };
            assert!(self.travel.press(key, &self.film), "{letter:?}");
        }
        self.at_ms()
    }

    fn at_ms(&self) -> u64 {
        (self.travel.at_ns(&self.film) - self.film.start_ns()) / 1_000_000
    }

    fn show(&mut self) {
        let at_ns = self.travel.at_ns(&self.film);
        let tick_ns = self.travel.tick_ns(&self.film);
        self.film.show(&mut self.model, at_ns, tick_ns);
        self.screen.refresh(&self.model);
    }

    fn picture(&mut self, size: (u16, u16)) -> String {
        self.show();
        let mut buffer = Buffer::empty(Rect::new(0, 0, size.0, size.1));
        let place = Place {
            film: &self.film,
            travel: &self.travel,
        };
        draw_recorded(&mut buffer, &mut self.screen, &self.model, PLAIN, place);
        text(&buffer)
    }
}

const MS_100: u64 = 100_000_000;

#[test]
fn a_recording_looks_like_this() {
    let mut recorded = Recorded::new();
    recorded.press(">>>");
    let small = recorded.picture((80, 24));
    expect_file("tests/golden/screen-recorded-80x24.txt", &small);
    let large = recorded.picture((200, 60));
    expect_file("tests/golden/screen-recorded-200x60.txt", &large);
    recorded.press("+ ");
    press(&mut recorded.screen, &recorded.model, "?");
    let help = recorded.picture((80, 24));
    expect_file("tests/golden/screen-recorded-help-80x24.txt", &help);
}

#[test]
fn keys_go_through_a_recording() {
    let mut recorded = Recorded::new();
    assert_eq!(recorded.at_ms(), 100);
    assert_eq!(recorded.press(">"), 200);
    assert_eq!(recorded.press("]"), 1_000, "not beyond the end");
    assert_eq!(recorded.press("<"), 900);
    assert_eq!(recorded.press("["), 0);
    assert_eq!(recorded.press("<"), 0);
    assert_eq!(recorded.press("$"), 1_000);
    assert_eq!(recorded.press("0"), 0);
    // The first waits for a lock, a disk and a CPU ended at 52, 75 and 47 ms, and none after 900 ms.
    assert_eq!(recorded.press("n"), 100);
    assert_eq!(recorded.press("N"), 100, "there is none before");
    let last = recorded.press("$N");
    assert!((200..=900).contains(&last), "{last}");
    assert_eq!(recorded.press("n"), last, "there is none after");
    recorded.press("$");
    let ticks = [recorded.press("Z>"), recorded.press("z<")];
    assert_eq!(
        ticks,
        [1_000, 900],
        "a tick of a second, and of a tenth again"
    );
}

#[test]
fn playing_takes_as_long_as_it_took_or_as_fast_as_asked() {
    let mut recorded = Recorded::new();
    recorded.travel.wait(MS_100, &recorded.film);
    assert_eq!(recorded.at_ms(), 100, "it stands still");
    recorded.press(" ");
    for _ in 0..4 {
        recorded.travel.wait(MS_100 / 2, &recorded.film);
    }
    assert_eq!(recorded.at_ms(), 300);
    recorded.press("+");
    recorded.travel.wait(MS_100, &recorded.film);
    assert_eq!(recorded.at_ms(), 500);
    recorded.travel.wait(u64::MAX, &recorded.film);
    assert_eq!(recorded.at_ms(), 1_000);
    assert!(!recorded.travel.playing, "it ends there");
    assert_eq!(recorded.press(" "), 0, "and begins anew");
}

/// Whichever way a moment was come to, it shows the same; and the whole is what a report says.
#[test]
fn a_moment_shows_the_same_from_wherever_it_is_come_to() {
    let mut stepped = Recorded::new();
    for _ in 0..9 {
        stepped.press(">");
        stepped.show();
    }
    let mut jumped = Recorded::new();
    jumped.press("$");
    let size = (120, 40);
    assert_eq!(stepped.picture(size), jumped.picture(size));
    let back = stepped.press("<<<<");
    stepped.show();
    let forth = jumped.press("0>>>>>>");
    assert_eq!(back, forth);
    assert_eq!(stepped.picture(size), jumped.picture(size));

    jumped.press("$");
    jumped.show();
    let live = named([shop()]);
    let figures = |model: &Model| format!("{:?}", model.total(Span::Whole).figures);
    assert_eq!(figures(&jumped.model), figures(&live));
}

#[test]
fn pictures_take_bounded_memory() {
    let pictures = shop_pictures(1_000);
    assert_eq!(pictures.len(), 1_001);
    let most = pictures.iter().map(Snapshot::bytes).max().expect("some");
    let longest = |film: &Film| film.longest_delays(1)[0];
    let all = film();
    let mut film = Film::new(most * 5);
    for mut picture in pictures {
        // The same, a hundred times as slow.
        picture.at_ns = all.start_ns() + (picture.at_ns - all.start_ns()) * 100;
        if film.wants(picture.at_ns) {
            film.add(picture);
        }
        assert!(film.bytes() <= most * 5, "{} of {most}", film.bytes());
    }
    assert!(film.len() >= 3, "{}", film.len());
    assert!(film.every_ns() >= 16 * MS_100, "{}", film.every_ns());
    assert_eq!(film.start_ns(), all.start_ns());
    assert_eq!(longest(&film), longest(&all), "no delay is lost");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any keys on a screen of any size: nothing breaks, and nothing is drawn outside.
    #[test]
    fn nothing_breaks_it(
        keys in prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec![
                    Key::Up, Key::Down, Key::PageUp, Key::PageDown, Key::Home, Key::End, Key::Enter,
                    Key::Escape, Key::Backspace, Key::Tab, Key::Left, Key::Right,
                ]),
                prop::sample::select("qshi?/ptag123Sdxjk é[]0$nNzZ+-".chars().collect::<Vec<_>>()).prop_map(Key::Char),
            ],
            0..40,
        ),
        sizes in prop::collection::vec((0u16..220, 0u16..70), 1..6),
        colors: bool,
    ) {
        let model = named([shop(), shop()]);
        let mut screen = Screen::default();
        let mut recorded = Recorded::new();
        for (number, key) in keys.into_iter().enumerate() {
            let (width, height) = sizes[number % sizes.len()];
            screen.press(key, &model, height);
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
            draw(&mut buffer, &mut screen, &model, Palette { colors });
            recorded.travel.press(key, &recorded.film);
            recorded.travel.wait(MS_100, &recorded.film);
            recorded.picture((width, height));
        }
    }
}
