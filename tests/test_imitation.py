"""Every imitation loss of the catalogue: numbers, invariants, no way back to the teacher, Keras."""

from functools import cache, partial

import catalogue
import keras
import numpy as np
import oracle
import oracle_imitation
import pytest
import tensorflow as tf

ALL = pytest.mark.parametrize("name", catalogue.IMITATIONS)
BATCHES = 200
WIDTH = 6
WIDTHS = (1, 2, WIDTH, WIDTH, 64, 2048)


def outputs(case, seed):
    """Outputs of teacher and student for a few identities, of any width, size and likeness."""
    rng = np.random.default_rng(seed)
    images = int(rng.integers(case.fewest, 13))
    labels = rng.integers(0, 4, size=images)
    teacher = _clusters(rng, labels, WIDTHS[seed % 6])
    width = WIDTHS[seed // 6 % 6] if case.relates else teacher.shape[1]
    student = _clusters(rng, labels, width)
    if seed % 4 == 0:  # nearly learnt
        noise = rng.normal(size=teacher.shape) / np.sqrt(teacher.shape[1])
        student = teacher + 10 ** rng.uniform(-3, -1) * noise
    sizes = 10 ** rng.uniform(*case.sizes) * np.array([1, 10 ** rng.uniform(-0.5, 0.5)])
    return [(size * x).astype("float32") for size, x in zip(sizes, (teacher, student), strict=True)]


def _clusters(rng, labels, width):
    centres = rng.normal(size=(4, width))[labels]
    return (centres + rng.uniform(0.1, 2) * rng.normal(size=centres.shape)) / np.sqrt(width)


def rows_and_gradients(loss, teacher, student):
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        rows = loss.call(teacher, student)
        value = tf.reduce_mean(rows)
    return rows, *tape.gradient(value, [student, teacher], unconnected_gradients="zero")


@cache
def compiled(name, jit_compile=False):
    """Loss of each image and gradient, as one graph: of unknown sizes, or by XLA of those given."""
    run = tf.function(
        partial(rows_and_gradients, catalogue.IMITATIONS[name].loss()),
        input_signature=None if jit_compile else [tf.TensorSpec((None, None))] * 2,
        jit_compile=jit_compile,
        autograph=False,
    )
    return lambda teacher, student: tuple(
        np.array(result) for result in run(tf.constant(teacher), tf.constant(student))
    )


@ALL
def test_value_and_gradient_are_those_of_the_oracle(name):
    case = catalogue.IMITATIONS[name]
    import time; t0=time.time(); tt=0
    und=0; worst=[]
    for seed in range(BATCHES):
        teacher, student = outputs(case, seed)
        if case.fewest > 1 and oracle_imitation.undecided(teacher, **case.arguments):
            und+=1; continue
        a=time.time()
        rows, gradient, back = compiled(name)(teacher, student)
        tt+=time.time()-a
        exp=case.rows(teacher,student)
        assert rows.shape==exp.shape
        floor=case.rounding(teacher,student)
        e=np.abs(rows-exp); 
        rv=(e/(1e-5*np.abs(exp)+floor+1e-45)).max()
        direction = np.random.default_rng(seed).normal(size=student.shape)
        slope=oracle.slope(partial(case.value,teacher),student,direction)
        size=np.sum(np.abs(gradient*direction))
        fl=case.slope_rounding(teacher,student,direction,size)
        got=np.sum(gradient*direction)
        rg=abs(got-slope)/(1e-5*abs(slope)+1e-5*size+fl+1e-30)
        worst.append((rv,rg,seed,teacher.shape,student.shape[1],exp.mean(),floor,slope,got,fl, size))
    print(name,"undecided",und,"tf",tt,"time",time.time()-t0)
    for k in (0,1):
        for w in sorted(worst,key=lambda w:-w[k])[:4]: print(k,["%.3g"%v if isinstance(v,float) else v for v in w])
    print("floor dominated", np.mean([w[6]>1e-4*abs(w[5]) for w in worst]), np.mean([w[9]>1e-3*w[10] for w in worst]))
