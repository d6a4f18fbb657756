//! Small pictures: scales, axes and marks as SVG text. Colours are the page's variables, so that
//! one picture serves light and dark.

use std::fmt::Write;

/// A drawing area with its margins.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    pub width: f64,
    pub height: f64,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Frame {
    pub const fn new(width: f64, height: f64) -> Self {
        Self { width, height, left: 64.0, right: 16.0, top: 12.0, bottom: 40.0 }
    }

    pub fn x(&self, share: f64) -> f64 {
        self.left + share * (self.width - self.left - self.right)
    }

    pub fn y(&self, share: f64) -> f64 {
        self.height - self.bottom - share * (self.height - self.top - self.bottom)
    }
}

/// From values to shares of an axis.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    from: f64,
    to: f64,
    log: bool,
    /// Seconds, to be told in minutes, hours and days.
    time: bool,
}

/// Steps of a time axis, in seconds: what people count in.
const TIME_STEPS: [f64; 25] = [
    1.0,
    2.0,
    5.0,
    10.0,
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1_800.0,
    3_600.0,
    7_200.0,
    10_800.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    432_000.0,
    604_800.0,
    1_209_600.0,
    2_592_000.0,
    7_776_000.0,
    31_536_000.0,
];
/// The same where each is about ten times the one before.
const TIME_POWERS: [f64; 10] =
    [1.0, 10.0, 60.0, 600.0, 3_600.0, 36_000.0, 86_400.0, 864_000.0, 8_640_000.0, 31_536_000.0];

impl Scale {
    pub fn linear(from: f64, to: f64) -> Self {
        Self { from, to: if to > from { to } else { from + 1.0 }, log: false, time: false }
    }

    /// Seconds on a linear axis.
    pub fn time(from: f64, to: f64) -> Self {
        Self { time: true, ..Self::linear(from, to) }
    }

    /// Seconds on a logarithmic axis, from 1 s on; it ends with the largest.
    pub fn log_time(to: f64) -> Self {
        Self { from: 0.0, to: libm::log10(to.max(10.0)), log: true, time: true }
    }

    /// Both ends are powers of ten.
    pub fn log(from: f64, to: f64) -> Self {
        let from = libm::floor(libm::log10(from.max(1e-9)));
        let to = libm::ceil(libm::log10(to.max(1e-9))).max(from + 1.0);
        Self { from, to, log: true, time: false }
    }

    pub fn share(&self, value: f64) -> f64 {
        let value = if self.log { libm::log10(value.max(1e-9)) } else { value };
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    /// Where to write a number.
    pub fn ticks(&self) -> Vec<f64> {
        if self.time {
            return self.time_ticks();
        }
        if self.log {
            let step = ((self.to - self.from) / 8.0).ceil().max(1.0);
            let count = ((self.to - self.from) / step) as i32;
            return (0..=count).map(|at| libm::pow(10.0, self.from + f64::from(at) * step)).collect();
        }
        let rough = (self.to - self.from) / 5.0;
        let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|k| k * power).find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.from / step).ceil();
        let ticks = (0..12).map(|at| (first + f64::from(at)) * step);
        ticks.take_while(|tick| *tick <= self.to + step * 1e-6).collect()
    }

    fn time_ticks(&self) -> Vec<f64> {
        if self.log {
            let last = libm::pow(10.0, self.to) * 1.001;
            return TIME_POWERS.into_iter().filter(|tick| *tick <= last).collect();
        }
        let rough = (self.to - self.from) / 8.0;
        let longest = TIME_STEPS[TIME_STEPS.len() - 1];
        let step = TIME_STEPS.into_iter().find(|step| *step >= rough).unwrap_or((rough / longest).ceil() * longest);
        let first = (self.from / step).ceil();
        let ticks = (0..12).map(|at| (first + f64::from(at)) * step);
        ticks.take_while(|tick| *tick <= self.to + step * 1e-6).collect()
    }
}

/// A picture being drawn.
pub struct Svg {
    pub frame: Frame,
    body: String,
    title: String,
}

impl Svg {
    pub fn new(title: &str, frame: Frame) -> Self {
        Self { frame, body: String::new(), title: title.to_owned() }
    }

    pub fn axes(&mut self, x: &Scale, x_text: &dyn Fn(f64) -> String, x_name: &str, y: &Scale, y_name: &str) {
        let frame = self.frame;
        let (left, right, floor) = (frame.x(0.0), frame.x(1.0), frame.y(0.0));
        for tick in y.ticks() {
            let at = frame.y(y.share(tick));
            let _ = write!(self.body, "<line class=grid x1={left:.1} x2={right:.1} y1={at:.1} y2={at:.1} />");
            self.text(left - 6.0, at + 4.0, "end", &if y.time { mark(tick) } else { short(tick) });
        }
        for tick in x.ticks() {
            let at = frame.x(x.share(tick));
            let _ = write!(self.body, "<line class=axis x1={at:.1} x2={at:.1} y1={floor:.1} y2={:.1} />", floor + 4.0);
            self.text(at, floor + 16.0, "middle", &x_text(tick));
        }
        let _ = write!(self.body, "<line class=axis x1={left:.1} x2={right:.1} y1={floor:.1} y2={floor:.1} />");
        self.text((left + right) / 2.0, frame.height - 6.0, "middle", x_name);
        let (x, y) = (12.0, (frame.y(0.0) + frame.y(1.0)) / 2.0);
        let _ = write!(
            self.body,
            "<text class=name transform='translate({x:.1} {y:.1}) rotate(-90)' text-anchor=middle>{}</text>",
            escape(y_name)
        );
    }

    pub fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let _ = write!(self.body, "<text x={x:.1} y={y:.1} text-anchor={anchor}>{}</text>", escape(text));
    }

    /// Points are shares of the axes.
    pub fn line(&mut self, colour: usize, points: &[(f64, f64)]) {
        let points = self.points(points.iter().copied());
        let _ = write!(self.body, "<polyline class='line c{colour}' points='{points}' />");
    }

    /// Between two lines over the same shares of x.
    pub fn area(&mut self, colour: usize, low: &[(f64, f64)], high: &[(f64, f64)]) {
        let points = self.points(high.iter().chain(low.iter().rev()).copied());
        let _ = write!(self.body, "<polygon class='area c{colour}' points='{points}' />");
    }

    fn points(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut text = String::new();
        for (x, y) in points {
            let _ = write!(text, "{:.1},{:.1} ", self.frame.x(x), self.frame.y(y));
        }
        text
    }

    pub fn dot(&mut self, colour: usize, x: f64, y: f64, note: &str) {
        let (x, y) = (self.frame.x(x), self.frame.y(y));
        let note = if note.is_empty() { String::new() } else { format!("<title>{}</title>", escape(note)) };
        let _ = write!(self.body, "<circle class='dot c{colour}' cx={x:.1} cy={y:.1} r=3>{note}</circle>");
    }

    /// In the picture's own units.
    pub fn rect(&mut self, colour: usize, (x, y): (f64, f64), (width, height): (f64, f64), note: &str) {
        let note = if note.is_empty() { String::new() } else { format!("<title>{}</title>", escape(note)) };
        let _ = write!(
            self.body,
            "<rect class='bar c{colour}' x={x:.1} y={y:.1} width={:.1} height={:.1}>{note}</rect>",
            width.max(0.4),
            height.max(0.4)
        );
    }

    pub fn finish(self) -> String {
        let Frame { width, height, .. } = self.frame;
        format!("<svg viewBox='0 0 {width} {height}' role=img aria-label='{}'>{}</svg>", escape(&self.title), self.body)
    }
}

/// A number in a few characters.
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    let (value, unit) = match magnitude {
        m if m >= 1e9 => (value / 1e9, "G"),
        m if m >= 1e6 => (value / 1e6, "M"),
        m if m >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = if value.abs() >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if value.abs() >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    format!("{text}{unit}")
}

/// Seconds as people say them.
pub fn span(seconds: f64) -> String {
    match seconds.abs() {
        s if s < 1.0 && s > 0.0 => format!("{seconds:.2} s"),
        s if s < 120.0 => format!("{seconds:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} d", seconds / 86_400.0),
    }
}

/// The same without a fraction of nothing, for axes.
pub fn mark(seconds: f64) -> String {
    let whole = |unit_s: f64, unit: &str| {
        let count = seconds / unit_s;
        (count == count.trunc()).then(|| format!("{count:.0} {unit}"))
    };
    match seconds.abs() {
        s if s >= 31_536_000.0 => whole(31_536_000.0, "y"),
        s if s >= 86_400.0 => whole(86_400.0, "d"),
        s if s >= 3_600.0 => whole(3_600.0, "h"),
        s if s >= 60.0 => whole(60.0, "min"),
        0.0 => Some("0".to_owned()),
        _ => None,
    }
    .unwrap_or_else(|| span(seconds))
}

pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_cover_their_ends() {
        let scale = Scale::linear(0.0, 37.0);
        assert_eq!((scale.share(0.0), scale.share(37.0), scale.share(99.0)), (0.0, 1.0, 1.0));
        assert_eq!(scale.ticks(), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(Scale::log(3.0, 2_000.0).ticks(), [1.0, 10.0, 100.0, 1000.0, 10000.0]);
        assert_eq!(Scale::linear(5.0, 5.0).share(5.5), 0.5);
    }

    #[test]
    fn time_is_marked_in_what_people_count_in() {
        let marks = |scale: Scale| scale.ticks().into_iter().map(mark).collect::<Vec<_>>();
        assert_eq!(marks(Scale::time(0.0, 400.0)), ["0", "1 min", "2 min", "3 min", "4 min", "5 min", "6 min"]);
        assert_eq!(marks(Scale::time(0.0, 1.14e6)), ["0", "2 d", "4 d", "6 d", "8 d", "10 d", "12 d"]);
        assert_eq!(marks(Scale::time(0.0, 30_000.0)), ["0", "2 h", "4 h", "6 h", "8 h"]);
        assert_eq!(marks(Scale::log_time(90_000.0)), ["1 s", "10 s", "1 min", "10 min", "1 h", "10 h", "1 d"]);
        assert_eq!(marks(Scale::log_time(0.0)), ["1 s", "10 s"]);
    }

    #[test]
    fn texts_cannot_break_out() {
        assert_eq!(escape("<a href='x'>&\u{7}"), "&lt;a href=&#39;x&#39;&gt;&amp;\u{fffd}");
        assert_eq!((short(12_345.0), short(0.25), short(3.0)), ("12.3k".into(), "0.25".into(), "3".into()));
        assert_eq!((span(90.0), span(3_600.0), span(300_000.0)), ("90 s".into(), "60 min".into(), "3.5 d".into()));
    }
}
