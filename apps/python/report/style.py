"""Names, colours and order of what a report shows."""
import matplotlib.pyplot as plt

# Colours of Okabe and Ito, told apart by colour-blind readers; the order is the order of the table.
STYLES = {
    "raw-jet": ("#000000", ":", "raw jet"), "constant": ("#000000", ":", "constant"),
    "deepsets scratch": ("#7f7f7f", "--", "DeepSets, individual"),
    "part scratch": ("#8c510a", "--", "ParT, individual"),
    "tessera scratch": ("#e69f00", "-", "from scratch"),
    "tessera random-frozen": ("#cc79a7", "-.", "random, frozen"),
    "tessera frozen": ("#56b4e9", "-", "pre-trained, frozen"),
    "tessera lpft": ("#009e73", "-", "pre-trained, probe then all"),
    "tessera delayed": ("#d55e00", "-.", "pre-trained, delayed"),
    "tessera full": ("#0072b2", "-", "pre-trained, fine-tuned"),
}
LOSS_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TASKS = {"tau-pt": "Tau momentum", "tau-id": "Tau identification", "tau-dm": "Tau decay mode", "tag": "Jet tagging"}
STAGES = {"tokenizer": "tokenizer", "pretrain": "pre-training", "generate": "generation"}
# metric: (name, does more count as better, None where the target is one)
METRICS = {"resolution": ("resolution", False), "response": ("response", None),
           "misid@80": ("mis-id. at 80 % eff.", False), "auc": ("AUC", True), "accuracy": ("accuracy", True)}
RESIDUALS = {"pt": r"$p_T^\mathrm{reco}$ / $p_T$ $-$ 1", "deta": r"reconstructed $-$ original $\Delta\eta$",
             "dphi": r"reconstructed $-$ original $\Delta\phi$"}
QUANTITIES = {"jet_pt": "jet $p_T$", "jet_mass": "jet mass", "n_constituents": "constituents", "width": "jet width",
              "tau21": r"$\tau_{21}$", "tau32": r"$\tau_{32}$", "constituent_log_pt": "ln (constituent $p_T$ / GeV)",
              "constituent_deta": r"constituent $\Delta\eta$", "constituent_dphi": r"constituent $\Delta\phi$"}
# The matrices that are open at once: an individual method, no pre-training, pre-training. The others unfold.
OPEN_MATRICES = ("part scratch", "tessera scratch", "tessera frozen", "tessera full")

plt.rcParams.update({
    "font.family": "sans-serif", "font.size": 11, "axes.labelsize": 12, "axes.linewidth": 1.0,
    "legend.frameon": False, "legend.fontsize": 9.5, "xtick.direction": "in", "ytick.direction": "in",
    "xtick.top": True, "ytick.right": True, "xtick.minor.visible": True, "ytick.minor.visible": True,
    "xtick.major.size": 6, "ytick.major.size": 6, "xtick.minor.size": 3, "ytick.minor.size": 3, "xtick.major.pad": 6, "ytick.major.pad": 5,
    "lines.linewidth": 1.7, "svg.fonttype": "path", "svg.hashsalt": "tessera",
    "savefig.bbox": "tight", "savefig.pad_inches": 0.08, "figure.constrained_layout.use": True,
})


def rank(key):
    return list(STYLES).index(key) if key in STYLES else len(STYLES)


def task_rank(task):
    return (list(TASKS) + [task]).index(task)


def plain(text):
    """A name from a file as matplotlib draws it unchanged: a dollar sign would begin a formula, which may be none."""
    return " ".join(str(text).replace("$", r"\$").split()) or "(empty)"


def task_name(task):
    return TASKS.get(task, task)


def strategy_name(key):
    return STYLES.get(key, ("", "", key))[2]


def style(key):
    """How a strategy is drawn."""
    colour, line, _ = STYLES.get(key, ("#666666", "-", key))
    return {"color": colour, "ls": line, "label": plain(strategy_name(key))}


def axis_unit(h):
    unit = h.get("unit")
    return f" / {plain(unit)}" if unit and not str(unit).startswith("ln ") else ""  # a logarithm names its unit itself
