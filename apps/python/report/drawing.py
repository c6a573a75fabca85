"""What several figures are drawn with."""
import numpy as np

try:
    import mplhep
except ImportError:  # histograms are then drawn with matplotlib alone
    mplhep = None

from report.style import style


def legend_below(figure, ax):
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9, handlelength=2.6, columnspacing=1.4)


def spread_of(rows):
    return rows.std(0, ddof=1) if len(rows) > 1 else np.zeros(rows.shape[1:])


def band(ax, x, rows, key, **options):
    """Mean over seeds with the band of their standard deviation."""
    rows = np.array(rows, dtype=float)
    mean, spread = rows.mean(0), spread_of(rows)
    ax.plot(x, mean, **style(key), **options)
    if spread.any():
        ax.fill_between(x, mean - spread, mean + spread, color=style(key)["color"], alpha=0.18, lw=0)


def histogram(ax, counts, edges, errors, **options):
    if mplhep:
        mplhep.histplot(counts, edges, yerr=errors, ax=ax, **options)
    else:
        ax.stairs(counts, edges, **{k: v for k, v in options.items() if k in ("color", "label")})


def error_bars(ax, x, y, error, colour):
    """As one path: a twentieth of the size of a path for each bar."""
    gap = np.full(len(x), np.nan)
    ax.plot(np.stack([x, x, gap], 1).ravel(), np.stack([y - error, y + error, gap], 1).ravel(), color=colour, lw=0.9)


def log_if_wide(ax):
    """A logarithmic axis where the drawn values are positive and span more than a factor of 20."""
    values = np.concatenate([line.get_ydata() for line in ax.lines])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
