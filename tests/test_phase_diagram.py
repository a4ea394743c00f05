"""Phase diagrams: the fields of MeanField, for every executor the same bits; their figures."""

import concurrent.futures
import multiprocessing

import numpy as np
import pytest

from jacometry import MeanField, critical_point, phase_diagram

FIELDS = ("q_star", "chi_1", "c_star", "chi_c", "depth_scale_q", "depth_scale_c",
          "depth_scale_grad", "phase", "status")  # fmt: skip
# Three tiles.
SIGMA_W, SIGMA_B = np.linspace(0, 4, 170), np.linspace(0, 1, 120)


@pytest.fixture(scope="module")
def diagram():
    return phase_diagram("erf", SIGMA_W, SIGMA_B)


def test_the_fields_are_those_of_mean_field(diagram):
    assert diagram.shape == diagram.chi_1.shape == (170, 120)
    rows = [0, 47, 98, 169]
    field = MeanField("erf", SIGMA_W[rows, None], SIGMA_B)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(diagram, name)[rows], getattr(field, name))


def test_threads_processes_and_dask_give_the_same_bits(diagram):
    def assert_same(executor):
        other = phase_diagram("erf", SIGMA_W, SIGMA_B, executor=executor)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(other, name), getattr(diagram, name))

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        assert_same(executor)
    spawning = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawning) as executor:
        assert_same(executor)


def test_a_dask_cluster_gives_the_same_bits(diagram):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        other = phase_diagram("erf", SIGMA_W, SIGMA_B, executor=client)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(other, name), getattr(diagram, name))


def test_a_failing_tile_raises_and_cancels_the_others():
    class Executor:
        def __init__(self):
            self.futures = []

        def submit(self, function, *arguments):
            future = concurrent.futures.Future()
            if not self.futures:
                future.set_exception(OSError("a worker died"))
            self.futures.append(future)
            return future

    executor = Executor()
    with pytest.raises(OSError, match="a worker died"):
        phase_diagram("erf", SIGMA_W, SIGMA_B, executor=executor)
    assert all(future.cancelled() for future in executor.futures[1:])


def test_progress_counts_the_tiles():
    calls = []
    phase_diagram("erf", SIGMA_W, SIGMA_B, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_the_dtype_is_that_of_the_axes():
    small = phase_diagram("erf", np.float32([1, 2]), np.float32([0.1]))
    assert small.q_star.dtype == small.sigma_w.dtype == np.float32
    whole = phase_diagram("erf", [1, 2], [0])
    assert whole.q_star.dtype == np.float64
    assert phase_diagram("erf", [], [0.1]).q_star.shape == (0, 1)


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        (([-1.0], [0.1]), ValueError, r"sigma_w must be >= 0, got -1.0 at index \(0,\)"),
        (([1.0], [0.1, -0.5]), ValueError, r"sigma_b must be >= 0, got -0.5 at index \(1,\)"),
        ((1.0, [0.1]), ValueError, "sigma_w must have one axis"),
        (([1.0], [[0.1]]), ValueError, "sigma_b must have one axis"),
        (([np.nan], [0.1]), ValueError, "sigma_w must be finite"),
        ((["x"], [0.1]), TypeError, "sigma_w"),
    ],
)
def test_rejections_name_the_argument(axes, error, message):
    with pytest.raises(error, match=message):
        phase_diagram("tanh", *axes)


def test_a_data_frame_has_a_row_per_point(diagram):
    pytest.importorskip("pandas")
    frame = diagram.to_dataframe()
    assert frame.shape == (170 * 120, 2 + len(FIELDS))
    row = frame.iloc[47 * 120 + 11]
    assert (row.sigma_w, row.sigma_b) == (SIGMA_W[47], SIGMA_B[11])
    assert row.chi_1 == diagram.chi_1[47, 11]
    assert row.phase == diagram.phase[47, 11]


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def contour_lines(ax):
    from matplotlib.contour import ContourSet

    return [c for c in ax.collections if isinstance(c, ContourSet) and not c.filled]


def test_the_plot_shows_the_critical_line(diagram, pyplot):
    ax = diagram.plot()
    (contour,) = contour_lines(ax)
    (path,) = contour.get_paths()
    vertices = path.vertices[path.vertices[:, 1] > 0.02]
    assert len(vertices) > 100
    step = SIGMA_W[1]
    for w, b in vertices[::40]:
        assert abs(critical_point("erf", sigma_b=float(b)).sigma_w - w) < step
    assert {text.get_text() for text in ax.texts} == {"ordered", "chaotic"}
    ax.figure.canvas.draw()


def test_the_plot_shades_where_the_signal_diverges(pyplot):
    diagram = phase_diagram("relu", np.linspace(0.5, 2, 20), np.linspace(0, 1, 10))
    given = pyplot.figure().add_subplot()
    assert diagram.plot(given) is given
    labels = given.get_legend_handles_labels()[1]
    assert "the signal diverges" in labels
    given.figure.canvas.draw()
    with pytest.raises(ValueError, match="drawn over a plane"):
        phase_diagram("relu", [1.0], [0.0, 1.0]).plot()


def test_depth_scales_peak_at_the_critical_point(diagram, pyplot):
    ax = diagram.plot_depth_scales(sigma_b=0.3)
    column = int(np.abs(SIGMA_B - 0.3).argmin())
    critical = critical_point("erf", sigma_b=float(SIGMA_B[column])).sigma_w
    correlation = next(line for line in ax.lines if line.get_label() == "correlation")
    peak = correlation.get_xdata()[np.nanargmax(correlation.get_ydata())]
    assert abs(peak - critical) < SIGMA_W[1]
    assert ax.get_yscale() == "log"
    ax.figure.canvas.draw()


def test_a_cobweb_ends_at_c_star(pyplot):
    field = MeanField("erf", [1.0, 2.0], 0.3)
    ax = field.plot_c_map(1, c=0.9)
    way = next(line for line in ax.lines if line.get_label() == "layer by layer")
    assert way.get_xdata()[0] == pytest.approx(0.9, abs=1e-15)
    assert way.get_xdata()[-1] == pytest.approx(field.c_star[1], abs=1e-3)
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match="finite q_star"):
        MeanField("relu", 2.0).plot_c_map()
    with pytest.raises(ValueError, match="c must lie in"):
        field.plot_c_map(1, c=2.0)
    with pytest.raises(IndexError, match="one point"):
        field.plot_c_map()
