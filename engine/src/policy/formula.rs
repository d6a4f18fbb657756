//! The expression language of `order = { formula = "..." }`: numbers, the gang's figures, `+ - * /
//! ^`, parentheses and a few functions. Written when the order cannot be named.
//!
//! Figures: `run` (s), `remaining` (s), `devices`, `wait` (s), `submit` (s), `class`.
//! Functions: `log10 log2 ln exp sqrt abs` of one value, `min max pow` of two.
//! A run time nobody knows is infinite. `^` binds tighter than a sign on its left and to the right.

use thiserror::Error;

/// Longest formula, in characters.
pub const TEXT_MAX: usize = 1000;
/// Deepest nesting.
const DEPTH_MAX: u32 = 64;

/// Why a formula is refused, with the place in its text (0-based, in characters).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} at character {at}")]
pub struct FormulaError {
    pub at: usize,
    pub what: String,
}

/// A parsed formula.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {
    root: Node,
}

/// What a formula may ask about a gang. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    pub run: f64,
    pub remaining: f64,
    pub devices: f64,
    pub wait: f64,
    pub submit: f64,
    pub class: f64,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    Figure(Figure),
    Negate(Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    Unary(Unary, Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Run,
    Remaining,
    Devices,
    Wait,
    Submit,
    Class,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Min,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unary {
    Log10,
    Log2,
    Ln,
    Exp,
    Sqrt,
    Abs,
}

impl Formula {
    pub fn parse(text: &str) -> Result<Self, FormulaError> {
        let chars: Vec<char> = text.chars().collect();
        if chars.len() > TEXT_MAX {
            return Err(FormulaError { at: TEXT_MAX, what: format!("the formula is longer than {TEXT_MAX}") });
        }
        let mut parser = Parser { chars, at: 0, depth: 0 };
        parser.skip_spaces();
        if parser.peek().is_none() {
            return Err(parser.error("the formula is empty"));
        }
        let root = parser.sum()?;
        match parser.peek() {
            None => Ok(Self { root }),
            Some(other) => Err(parser.error(format!("unexpected `{other}`"))),
        }
    }

    /// The value for one gang; NaN where the formula has none (0/0, the root of a negative).
    pub fn value(&self, figures: &Figures) -> f64 {
        self.root.value(figures)
    }

    /// Does the order of waiting gangs change as time passes?
    pub fn is_timed(&self) -> bool {
        self.root.mentions(Figure::Wait)
    }
}

impl Node {
    fn value(&self, figures: &Figures) -> f64 {
        match self {
            Node::Number(number) => *number,
            Node::Figure(figure) => match figure {
                Figure::Run => figures.run,
                Figure::Remaining => figures.remaining,
                Figure::Devices => figures.devices,
                Figure::Wait => figures.wait,
                Figure::Submit => figures.submit,
                Figure::Class => figures.class,
            },
            Node::Negate(inner) => -inner.value(figures),
            Node::Binary(operator, left, right) => operator.value(left.value(figures), right.value(figures)),
            Node::Unary(function, inner) => function.value(inner.value(figures)),
        }
    }

    fn mentions(&self, wanted: Figure) -> bool {
        match self {
            Node::Number(_) => false,
            Node::Figure(figure) => *figure == wanted,
            Node::Negate(inner) | Node::Unary(_, inner) => inner.mentions(wanted),
            Node::Binary(_, left, right) => left.mentions(wanted) || right.mentions(wanted),
        }
    }
}

impl Binary {
    fn value(self, left: f64, right: f64) -> f64 {
        match self {
            Binary::Add => left + right,
            Binary::Subtract => left - right,
            Binary::Multiply => left * right,
            Binary::Divide => left / right,
            Binary::Power => libm::pow(left, right),
            Binary::Min => libm::fmin(left, right),
            Binary::Max => libm::fmax(left, right),
        }
    }
}

impl Unary {
    fn value(self, of: f64) -> f64 {
        match self {
            Unary::Log10 => libm::log10(of),
            Unary::Log2 => libm::log2(of),
            Unary::Ln => libm::log(of),
            Unary::Exp => libm::exp(of),
            Unary::Sqrt => libm::sqrt(of),
            Unary::Abs => libm::fabs(of),
        }
    }
}

/// Recursive descent, one character of look-ahead. Spaces are skipped after every piece.
struct Parser {
    chars: Vec<char>,
    at: usize,
    depth: u32,
}

impl Parser {
    fn error(&self, what: impl Into<String>) -> FormulaError {
        FormulaError { at: self.at, what: what.into() }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += 1;
            self.skip_spaces();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), FormulaError> {
        if self.take(wanted) {
            return Ok(());
        }
        Err(match self.peek() {
            Some(other) => self.error(format!("expected `{wanted}`, found `{other}`")),
            None => self.error(format!("expected `{wanted}`, found the end")),
        })
    }

    fn sum(&mut self) -> Result<Node, FormulaError> {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Some('+') => Binary::Add,
                Some('-') => Binary::Subtract,
                _ => return Ok(left),
            };
            self.at += 1;
            self.skip_spaces();
            left = Node::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Node, FormulaError> {
        let mut left = self.signed()?;
        loop {
            let operator = match self.peek() {
                Some('*') => Binary::Multiply,
                Some('/') => Binary::Divide,
                _ => return Ok(left),
            };
            self.at += 1;
            self.skip_spaces();
            left = Node::Binary(operator, Box::new(left), Box::new(self.signed()?));
        }
    }

    /// Every way to nest passes through here, so this is where depth is counted.
    fn signed(&mut self) -> Result<Node, FormulaError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("the formula is nested deeper than {DEPTH_MAX}")));
        }
        let node = if self.take('-') { Node::Negate(Box::new(self.signed()?)) } else { self.power()? };
        self.depth -= 1;
        Ok(node)
    }

    fn power(&mut self) -> Result<Node, FormulaError> {
        let base = self.atom()?;
        if !self.take('^') {
            return Ok(base);
        }
        Ok(Node::Binary(Binary::Power, Box::new(base), Box::new(self.signed()?)))
    }

    fn atom(&mut self) -> Result<Node, FormulaError> {
        match self.peek() {
            Some('(') => {
                self.take('(');
                let inner = self.sum()?;
                self.expect(')')?;
                Ok(inner)
            }
            Some(digit) if digit.is_ascii_digit() || digit == '.' => self.number(),
            Some(letter) if letter.is_ascii_alphabetic() => self.word(),
            Some(other) => Err(self.error(format!("unexpected `{other}`"))),
            None => Err(self.error("expected a value, found the end")),
        }
    }

    fn number(&mut self) -> Result<Node, FormulaError> {
        let start = self.at;
        while let Some(now) = self.peek() {
            let after_exponent = self.at > start && matches!(self.chars[self.at - 1], 'e' | 'E');
            if now.is_ascii_digit() || matches!(now, '.' | 'e' | 'E') || (after_exponent && matches!(now, '+' | '-')) {
                self.at += 1;
            } else {
                break;
            }
        }
        let text: String = self.chars[start..self.at].iter().collect();
        let Some(number) = text.parse().ok().filter(|number: &f64| number.is_finite()) else {
            return Err(FormulaError { at: start, what: format!("`{text}` is not a number") });
        };
        self.skip_spaces();
        Ok(Node::Number(number))
    }

    fn word(&mut self) -> Result<Node, FormulaError> {
        let start = self.at;
        while self.peek().is_some_and(|now| now.is_ascii_alphanumeric()) {
            self.at += 1;
        }
        let text: String = self.chars[start..self.at].iter().collect();
        self.skip_spaces();
        let unary = |parser: &mut Self, function| {
            parser.expect('(')?;
            let inner = parser.sum()?;
            parser.expect(')')?;
            Ok(Node::Unary(function, Box::new(inner)))
        };
        Ok(match text.as_str() {
            "run" => Node::Figure(Figure::Run),
            "remaining" => Node::Figure(Figure::Remaining),
            "devices" => Node::Figure(Figure::Devices),
            "wait" => Node::Figure(Figure::Wait),
            "submit" => Node::Figure(Figure::Submit),
            "class" => Node::Figure(Figure::Class),
            "log10" => unary(self, Unary::Log10)?,
            "log2" => unary(self, Unary::Log2)?,
            "ln" => unary(self, Unary::Ln)?,
            "exp" => unary(self, Unary::Exp)?,
            "sqrt" => unary(self, Unary::Sqrt)?,
            "abs" => unary(self, Unary::Abs)?,
            "min" => self.pair(Binary::Min)?,
            "max" => self.pair(Binary::Max)?,
            "pow" => self.pair(Binary::Power)?,
            _ => {
                let what = format!(
                    "`{text}` is not known; there is run, remaining, devices, wait, submit, class, \
                     log10, log2, ln, exp, sqrt, abs, min, max, pow"
                );
                return Err(FormulaError { at: start, what });
            }
        })
    }

    fn pair(&mut self, function: Binary) -> Result<Node, FormulaError> {
        self.expect('(')?;
        let left = self.sum()?;
        self.expect(',')?;
        let right = self.sum()?;
        self.expect(')')?;
        Ok(Node::Binary(function, Box::new(left), Box::new(right)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: Figures =
        Figures { run: 100.0, remaining: 40.0, devices: 8.0, wait: 50.0, submit: 1000.0, class: 1.0 };

    fn value(text: &str) -> f64 {
        Formula::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).value(&FIGURES)
    }

    #[test]
    fn operators_bind_as_in_arithmetic() {
        for (text, expected) in [
            ("1 + 2 * 3", 7.0),
            ("(1+2)*3", 9.0),
            ("8 - 3 - 2", 3.0),
            ("64 / 4 / 2", 8.0),
            ("2 ^ 3 ^ 2", 512.0),
            ("-2 ^ 2", -4.0),
            ("2 ^ -1", 0.5),
            ("1.5e3 + .5", 1500.5),
            ("max(wait, run) - min(1, 2)", 99.0),
            ("log10(run) * devices + 870 * log10(submit)", 2626.0),
            ("-(wait / run)^3 * devices", -1.0),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, at) in [
            ("", 0),
            ("run +", 5),
            ("runn", 0),
            ("1 + (2", 6),
            ("min(1)", 5),
            ("2 2", 2),
            ("log10 run", 6),
            ("1 $ 2", 2),
            ("1.2.3", 0),
            ("1e999", 0),
        ] {
            assert_eq!(Formula::parse(text).map(|_| ()).map_err(|error| error.at), Err(at), "{text}");
        }
        assert!(Formula::parse(&"(".repeat(900)).is_err());
        assert!(Formula::parse(&"1+".repeat(600)).is_err());
    }

    #[test]
    fn only_a_formula_with_wait_moves_with_time() {
        assert!(Formula::parse("wait / run").is_ok_and(|formula| formula.is_timed()));
        assert!(Formula::parse("run * devices").is_ok_and(|formula| !formula.is_timed()));
    }
}
