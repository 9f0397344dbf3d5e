//! Outcomes as pictures.

use std::path::Path;

use anyhow::anyhow;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::{
    BindKeyPoints, ChartBuilder, Circle, Color, IntoDrawingArea, IntoFont, IntoLogRange,
    LineSeries, PathElement, RGBColor, Ranged, SVGBackend, SeriesLabelPosition, WHITE,
};

use crate::outcome::{Axis, Plot, Scale};

const SIZE: (u32, u32) = (760, 420);
const INK: RGBColor = RGBColor(60, 60, 60);
/// The colours of Okabe and Ito, which all can tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];

/// Draws a plot into a file.
pub(crate) fn draw(plot: &Plot, path: &Path) -> anyhow::Result<()> {
    let (x, y) = (Extent::of(plot, &plot.x, |point| point.0), Extent::of(plot, &plot.y, |p| p.1));
    let drawn = match (plot.x.scale, plot.y.scale) {
        (Scale::Linear, Scale::Linear) => draw_on(plot, path, x.linear(), y.linear()),
        (Scale::Linear, _) => draw_on(plot, path, x.linear(), y.logarithmic()),
        (_, Scale::Linear) => draw_on(plot, path, x.logarithmic(), y.linear()),
        (_, _) => draw_on(plot, path, x.logarithmic(), y.logarithmic()),
    };
    drawn.map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// From where to where an axis goes, and where it is labelled.
struct Extent {
    from: f64,
    to: f64,
    marks: Vec<f64>,
}

impl Extent {
    fn of(plot: &Plot, axis: &Axis, coordinate: impl Fn(&(f64, f64)) -> f64) -> Self {
        let points = plot.lines.iter().flat_map(|line| &line.points);
        let mut all: Vec<f64> = points.map(coordinate).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        let least = all.first().copied().unwrap_or(1.0);
        let most = all.last().copied().unwrap_or(1.0);
        if axis.scale == Scale::Linear {
            return Self { from: 0.0, to: most * 1.1, marks: Vec::new() };
        }
        // Few values are labelled themselves, and many by round numbers.
        let (from, to) = (least.min(most * 0.9), most.max(least * 1.1));
        if all.len() <= 6 {
            return Self { from, to, marks: all };
        }
        let steps: &[f64] = if axis.scale == Scale::Nines { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = (-3..9).map(|power| 10_f64.powi(power));
        let marks = powers.flat_map(|power| steps.iter().map(move |step| step * power));
        let marks: Vec<f64> = marks.collect();
        let below = marks.iter().rev().find(|mark| **mark <= from).copied().unwrap_or(from);
        // A share that is written with nines is one only nearly.
        let above = marks.iter().find(|mark| **mark * 1.001 >= to).copied().unwrap_or(to);
        let marks = marks.into_iter().filter(|mark| (below..=above).contains(mark)).collect();
        Self { from: below, to: above.max(to), marks }
    }

    fn linear(self) -> std::ops::Range<f64> {
        self.from..self.to
    }

    fn logarithmic(self) -> impl AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>> {
        (self.from..self.to).log_scale().with_key_points(self.marks)
    }
}

fn draw_on<X, Y>(plot: &Plot, path: &Path, x: X, y: Y) -> Result<(), Box<dyn std::error::Error>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
{
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&plot.title, ("sans-serif", 18).into_font().color(&INK))
        .margin(12)
        .margin_right(32)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(&plot.x.label)
        .y_desc(&plot.y.label)
        .x_label_formatter(&|value| mark(plot.x.scale, *value))
        .y_label_formatter(&|value| mark(plot.y.scale, *value))
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .axis_style(INK)
        .bold_line_style(INK.mix(0.15))
        .light_line_style(INK.mix(0.0))
        .draw()?;
    for (line, colour) in plot.lines.iter().zip(COLOURS.iter().cycle().copied()) {
        let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(series)?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        if line.points.len() <= 8 {
            let points = line.points.iter();
            chart.draw_series(points.map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
    }
    if plot.lines.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font(("sans-serif", 13).into_font().color(&INK))
            .background_style(WHITE.mix(0.85))
            .border_style(INK.mix(0.2))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// The label of a place on an axis.
fn mark(scale: Scale, value: f64) -> String {
    match scale {
        Scale::Nines => format!("{} %", round(100.0 - 100.0 / value)),
        _ if value >= 1e6 => format!("{} M", round(value / 1e6)),
        _ if value >= 1e4 => format!("{} k", round(value / 1e3)),
        _ => round(value),
    }
}

/// A number without digits that nobody needs.
fn round(value: f64) -> String {
    let digits = format!("{value:.4}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    match (whole.len(), fraction.len()) {
        (_, 0) => whole.to_owned(),
        (3.., _) => format!("{value:.0}"),
        (2, 2..) if !digits.starts_with("99") => format!("{value:.1}"),
        _ => digits.to_owned(),
    }
}
