export OMP_NUM_THREADS=1 PYTHONPATH=$PWD
for s in 1 2; do .venv/bin/python -m polarmask.ablate --model.depth 1 --model.strides [4] --model.ranges [[-1,1e8]] --data.size 64 --data.count 640 --optim.epochs 6 --optim.lr 4e-3 --optim.warmup_steps 20 --optim.ema 0.98 --seed $s --out runs/part$s; done
