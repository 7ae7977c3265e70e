"""The mutants: faults in single lines of the loops, strategy, cost, networks, training, data and files, each with its tests."""

from __future__ import annotations

from tests.mutants.runner import Mutant

BY_HAND = "tests/loops/test_steps.py::test_a_search_step_equals_the_step_by_hand"
FIRST, SECOND, BALANCED = (f"{BY_HAND}[{name}]" for name in ("first", "second", "first-balanced"))
RETRAIN = "tests/loops/test_steps.py::test_a_retraining_step_equals_the_step_by_hand"
RETRAIN_PLAIN, RETRAIN_NESTEROV = f"{RETRAIN}[False-0.25-plain]", f"{RETRAIN}[True-0.25-plain]"
RETRAIN_BALANCED = f"{RETRAIN}[False-0.25-balanced]"
RECORDS = "tests/loops/test_records.py"
SCHEDULES = f"{RECORDS}::test_a_search_follows_its_schedules"
MULTIPLIER = f"{RECORDS}::test_a_multiplier_is_adjusted_once_per_epoch_after_the_warm_up"
HALVES = f"{RECORDS}::test_weights_and_alpha_learn_from_their_own_halves"
STAGES = f"{RECORDS}::test_every_epoch_of_every_stage_has_its_own_shuffle_and_crops"
RECIPE = f"{RECORDS}::test_a_retraining_follows_its_schedules"
CROPS = f"{RECORDS}::test_every_epoch_of_a_retraining_has_its_own_crops"
BEST = "tests/loops/test_retrain.py::test_the_best_weights_are_those_of_the_best_epoch"
PAIRED = "tests/loops/test_rank.py::test_networks_are_compared_on_the_same_images"
ESTIMATE = "tests/loops/test_rank.py::test_several_seeds_add_an_error_over_seeds"
RANKED_IMAGES = "tests/loops/test_rank.py::test_a_ranking_splits_the_training_set_into_two_parts"
AUGMENTED = "tests/data/test_dataset.py::test_an_image_is_augmented_anew_in_every_epoch_and_stream"
INTERVALS = "tests/training/test_intervals.py"
CLAIM, RESUME = "tests/training/test_claim.py", "tests/training/test_resume.py"
BILEVEL = "tests/strategy/test_bilevel.py"
HOSTILE = "tests/whole/test_hostile_files.py"
EXPECTED = "tests/cost/test_expected.py"
PEAK = "tests/cost/test_peak_memory.py"
DISCRETIZE = "tests/strategy/test_discretize.py"
EXACT = "tests/strategy/test_exact.py"
PRUNE = "tests/strategy/test_progressive.py"
SUPERNET = "tests/networks/test_supernet.py"
RELAXATIONS = "tests/strategy/test_relaxations.py"
RELAXED = "tests/loops/test_relaxed_search.py"
PLANTED = "tests/loops/test_planted_faults.py::test_a_bad_update_of_a_search_leaves_no_trace"
BATCHED = "tests/networks/batched/test_supernet.py"
VERIFIED = "tests/networks/batched/test_verified.py"
DERIVED = "tests/networks/test_derived.py"


MUTANTS: dict[str, list[tuple[str, str, str, str]]] = {
    "loops/search.py": [
        (
            "the price is that of drawn weights",
            "cost = penalty(architecture.expected())",
            "cost = penalty(architecture())",
            f"{RELAXED}::test_the_supernet_gets_drawn_weights_and_the_price_expected_ones[False]",
        ),
        (
            "the temperature does not fall",
            "architecture.relaxation.begin(epoch / max(",
            "architecture.relaxation.begin(0 * epoch / max(",
            f"{RELAXED}::test_an_interrupted_search_resumes_bit_identically[gumbel]",
        ),
        (
            "a stopped search returns the alphas of its last epoch",
            'if stop.observe(curve["eigenvalue"], architecture):',
            'if stop.observe(curve["eigenvalue"], torch.nn.ReLU()):',
            f"{RELAXED}::test_a_stopped_search_returns_the_alphas_from_before",
        ),
        (
            "alpha ignores its initial deviation",
            "Architecture(space, settings.alpha_init, settings",
            "Architecture(space, 1e-3, settings",
            f"{RECORDS}::test_every_stage_begins_with_its_own_weights",
        ),
        (
            "no candidate is dropped",
            "keep or len(space.primitives)",
            "len(space.primitives)",
            "tests/loops/test_search.py::test_alphas_read_back_bit_identically",
        ),
        (
            "one replica decides which candidates are dropped",
            "mean = mean_weights(weights)",
            "mean = mean_weights(weights[:1])",
            "tests/loops/test_search.py::test_all_replicas_are_pruned_alike",
        ),
        (
            "all replicas have one seed",
            "Replica.of(replace(config, seed=seed), number",
            "Replica.of(replace(config, seed=config.seed), number",
            "tests/loops/test_search.py::test_replicas_train_one_after_the_other_in_every_stage",
        ),
        (
            "multipliers begin anew when a search is resumed",
            'carries, stream = ["architecture", "penalty"]',
            'carries, stream = ["architecture"]',
            "tests/loops/test_search.py::test_an_interrupted_search_with_replicas_resumes_bit_identically",
        ),
        (
            "the price ignores the user's rate",
            "rule.limits, settings.budget_rate, device)",
            "rule.limits, 0.5, device)",
            MULTIPLIER,
        ),
        (
            "the first-order gradient of alpha comes from the training half",
            "logits = supernet(search_images, architecture())",
            "search_images, search_labels = images, labels; logits = supernet(search_images, architecture())",
            FIRST,
        ),
        (
            "the second-order gradient of alpha comes from the training half",
            "batches = (images, labels), (search_images, search_labels)",
            "batches = (images, labels), (images, labels)",
            SECOND,
        ),
        (
            "alpha's step gets the training batch",
            "alternate(*train_batch, *search_batch, epoch >= settings.warmup_epochs)",
            "alternate(*train_batch, *train_batch, epoch >= settings.warmup_epochs)",
            HALVES,
        ),
        (
            "the halves are exchanged",
            "alternate(*train_batch, *search_batch, epoch >= settings.warmup_epochs)",
            "alternate(*search_batch, *train_batch, epoch >= settings.warmup_epochs)",
            HALVES,
        ),
        (
            "wrong labels in the search loss",
            "loss = mean_loss(logits, search_labels, balance)",
            "loss = mean_loss(logits, search_labels.flip(0), balance)",
            FIRST,
        ),
        (
            "wrong labels in the training loss of a search",
            "loss = mean_loss(logits, labels, balance)",
            "loss = mean_loss(logits, labels.flip(0), balance)",
            FIRST,
        ),
        (
            "a constant learning rate of the search",
            "lr = cosine(epoch, settings.epochs, settings.lr, settings.lr_min)",
            "lr = settings.lr",
            SCHEDULES,
        ),
        (
            "the search records its learning rate, but does not use it",
            "set_lr(sgd, lr)",
            "set_lr(sgd, settings.lr)",
            SCHEDULES,
        ),
        (
            "alpha is not clipped",
            "optimizer_step(adam, alpha, slopes, settings.alpha_clip, verdict)",
            "optimizer_step(adam, alpha, slopes, 0.0, verdict)",
            FIRST,
        ),
        (
            "alpha has no weight decay",
            "weight_decay=settings.alpha_weight_decay,",
            "weight_decay=0.0,",
            FIRST,
        ),
        (
            "alpha ignores its betas",
            "(settings.alpha_beta1, settings.alpha_beta2),",
            "(0.9, 0.999),",
            FIRST,
        ),
        (
            "alpha ignores the price",
            "[t + p for t, p in zip(task, price",
            "[t for t, p in zip(task, price",
            FIRST,
        ),
        (
            "the weights of a search are not clipped",
            "optimizer_step(sgd, weights, gradients, settings.clip, verdict)",
            "optimizer_step(sgd, weights, gradients, 0.0, verdict)",
            FIRST,
        ),
        (
            "alpha also learns in the warm-up",
            "        if warm:",
            "        if True:",
            FIRST,
        ),
        (
            "the warm-up is ignored",
            "*search_batch, epoch >= settings.warmup_epochs))",
            "*search_batch, True))",
            SCHEDULES,
        ),
        (
            "a constant skip dropout",
            "supernet.dropout.rate = rate",
            "supernet.dropout.rate = stage.dropout_rate",
            SCHEDULES,
        ),
        (
            "the supernet is not in training mode",
            "        supernet.train()",
            "        supernet.eval()",
            SCHEDULES,
        ),
        (
            "multipliers are adjusted in the warm-up",
            "        if epoch >= settings.warmup_epochs:",
            "        if True:",
            MULTIPLIER,
        ),
        (
            "multipliers follow the expected cost instead of the genotype's",
            "penalty.adjust(realised)",
            'penalty.adjust({name: facts[f"expected_{name}"] for name in rule.limits})',
            MULTIPLIER,
        ),
        (
            "the search ignores its class weights",
            "balance = class_weights(settings.class_weights,",
            'balance = class_weights("none",',
            HALVES,
        ),
        (
            "the virtual step has no momentum",
            '        group["momentum"],',
            "        0.0,",
            SECOND,
        ),
        (
            "the virtual step has no weight decay",
            '        group["weight_decay"],',
            "        0.0,",
            SECOND,
        ),
        (
            "the virtual step forgets the velocity",
            "        velocity,",
            "        None,",
            SECOND,
        ),
        (
            "every stage begins with the same weights",
            '"initial weights", stage))',
            '"initial weights", 0))',
            f"{RECORDS}::test_every_stage_begins_with_its_own_weights",
        ),
    ],
    "loops/search_batches.py": [
        (
            "the subset is ignored",
            "if settings.subset < 1:",
            "if False:",
            "tests/loops/test_search.py::test_the_halves_share_no_image_and_the_smaller_half_is_repeated",
        ),
        (
            "the halves have the same size",
            'settings.weight_fraction, seed, "halves",',
            '0.5, seed, "halves",',
            "tests/loops/test_search.py::test_the_halves_share_no_image_and_the_smaller_half_is_repeated",
        ),
        (
            "a search does not augment",
            "config.data.crop, config.data.flip, cutout=0)",
            "0, False, cutout=0)",
            STAGES,
        ),
        (
            "both halves are the first half",
            '("architecture", second, f"',
            '("architecture", first, f"',
            HALVES,
        ),
        (
            "every stage sees the same batches",
            "return replace(self, begun=number * self.epochs)",
            "return replace(self, begun=0)",
            STAGES,
        ),
        (
            "stages see shifted batches of the search half",
            "self._search_batches(epoch * self.steps + start)",
            "self._search_batches((epoch - self.begun) * self.steps + start)",
            STAGES,
        ),
    ],
    "loops/retrain.py": [
        (
            "the network is tested on its training images",
            "ordered(data.test, None, settings.batch",
            "ordered(data.train, None, settings.batch",
            "tests/loops/test_retrain.py::test_evaluate_gives_the_accuracy_of_the_run",
        ),
        (
            "accumulated batches are small batches",
            'settings.batch * settings.accumulate, "retrain.batch"',
            'settings.batch, "retrain.batch"',
            "tests/loops/test_retrain.py::test_accumulated_batches_are_equal_to_one_large_batch",
        ),
        (
            "the recipe's schedule is always the cosine",
            "lr = SCHEDULES[settings.schedule](",
            'lr = SCHEDULES["cosine"](',
            "tests/loops/test_retrain.py::test_the_learning_rate_is_warmed_up",
        ),
        (
            "the auxiliary head has weight 1",
            "total = main + settings.auxiliary * summed_loss(",
            "total = main + summed_loss(",
            RETRAIN_PLAIN,
        ),
        (
            "the auxiliary head is not trained with smoothed labels",
            "summed_loss(extra, labels, settings.label_smoothing, balance)",
            "summed_loss(extra, labels, 0.0, balance)",
            RETRAIN_PLAIN,
        ),
        (
            "no label smoothing",
            "total = main = summed_loss(logits, labels, settings.label_smoothing, balance)",
            "total = main = summed_loss(logits, labels, 0.0, balance)",
            RETRAIN_PLAIN,
        ),
        (
            "no class weights in the loss",
            "cross_entropy(logits, labels, balance, reduction",
            "cross_entropy(logits, labels, None, reduction",
            RETRAIN_BALANCED,
        ),
        (
            "a constant drop path",
            "rate = drop_path(epoch, settings.epochs, settings.drop_path)",
            "rate = settings.drop_path",
            RECIPE,
        ),
        (
            "the recorded drop path is not used",
            "drop_rate.fill_(rate)",
            "drop_rate.fill_(settings.drop_path)",
            RECIPE,
        ),
        (
            "a constant learning rate of the retraining",
            "set_lr(sgd, lr)",
            "set_lr(sgd, settings.lr)",
            RECIPE,
        ),
        (
            "the learning rate is not warmed up",
            "lr *= warmup(epoch, settings.warmup_epochs)",
            "lr *= 1",
            RECIPE,
        ),
        (
            "the network is not in training mode",
            "        network.train()",
            "        network.eval()",
            RECIPE,
        ),
        (
            "the gradient is not divided by the batch",
            "(total / size).backward()",
            "total.backward()",
            RETRAIN_PLAIN,
        ),
        (
            "the retraining is not clipped",
            "gradients, settings.clip, verdict)",
            "gradients, 0.0, verdict)",
            RETRAIN_PLAIN,
        ),
        (
            "the moving average is never updated",
            "        final.update(verdict.kept)",
            "        pass",
            RETRAIN_PLAIN,
        ),
        (
            "all parts of a batch have the first part's labels",
            "labels[part::parts], settings",
            "labels[0::parts], settings",
            RETRAIN_PLAIN,
        ),
        (
            "gradients of the parts are those of the last part",
            "(total / size).backward()",
            "sgd.zero_grad(); (total / size).backward()",
            RETRAIN_PLAIN,
        ),
        (
            "the retraining ignores its class weights",
            "balance = class_weights(settings.class_weights,",
            'balance = class_weights("none",',
            RECIPE,
        ),
        (
            "no Nesterov momentum",
            "settings.weight_decay, settings.nesterov)",
            "settings.weight_decay, False)",
            "tests/loops/test_retrain.py::test_every_setting_of_the_recipe_affects_the_weights[retrain.nesterov=true]",
        ),
        (
            "the best epoch is the last one",
            "if accuracy > self.best.score:",
            "if True:",
            BEST,
        ),
        (
            "the best weights are tested as the last ones",
            "network.load_state_dict(final.best.weights)",
            "pass",
            BEST,
        ),
        (
            "the last weights are tested as the best ones",
            "network.load_state_dict(last)",
            "pass",
            BEST,
        ),
        (
            "training and held-out images are exchanged",
            "held_out, train = split(",
            "train, held_out = split(",
            BEST,
        ),
    ],
    "loops/signs.py": [
        (
            "the loss of chance ignores label smoothing",
            "(1 - smoothing) * shares + smoothing / classes",
            "shares",
            "tests/loops/test_signs.py::test_the_loss_of_chance_is_the_least_of_all_constant_predictions",
        ),
        (
            "the first steps of a training count like the others",
            "early = min(max(ENOUGH_STEPS / steps - last, 0.0), 1.0)",
            "early = 0.0",
            "tests/loops/test_signs.py::test_a_short_healthy_search_with_a_rare_class_gets_no_remark",
        ),
    ],
    "loops/rank.py": [
        (
            "a network that diverged with one seed is ranked by the others",
            "diverged = np.isnan(correct).any((1, 2))",
            "diverged = np.isnan(correct).all((1, 2))",
            "tests/loops/test_rank.py::test_a_network_with_a_diverged_training_comes_last_and_the_others_continue",
        ),
        (
            "a short ranking never leaves its warm-up",
            "min(config.retrain.warmup_epochs, epochs - 1)",
            "config.retrain.warmup_epochs",
            "tests/loops/test_rank.py::test_a_ranking_shorter_than_the_warm_up_reaches_the_full_learning_rate",
        ),
        (
            "the worst network comes first",
            "key=lambda number: (-accuracies[number]",
            "key=lambda number: (accuracies[number]",
            "tests/loops/test_rank.py::test_a_planted_bad_genotype_comes_last",
        ),
        (
            "errors of a difference are not paired",
            "estimate(correct), estimate(first - correct)",
            "estimate(correct), estimate(np.concatenate([first, -correct], 1))",
            PAIRED,
        ),
        (
            "the interval of a difference is not paired",
            "low, high = paired_interval(first - correct)",
            "low, high = paired_interval(np.concatenate([first, -correct], 1))",
            PAIRED,
        ),
        (
            "every seed of a ranking is the first",
            "seed=(recipe.seed + seed) % 2**32)",
            "seed=recipe.seed)",
            "tests/loops/test_rank.py::test_several_seeds_give_an_interval_over_seeds",
        ),
        (
            "a ranking is judged on the test set",
            "test=data.train.take(second)",
            "test=data.test",
            RANKED_IMAGES,
        ),
        (
            "the error over seeds is that of one seed",
            "math.sqrt(seeds)) if seeds > 1",
            "1.0) if seeds > 1",
            ESTIMATE,
        ),
    ],
    "strategy/bilevel.py": [
        (
            "the second-order part has the wrong sign",
            "g - lr * (plus - minus)",
            "g + lr * (plus - minus)",
            SECOND,
        ),
        (
            "the sides of the difference draw different masks",
            "torch.set_rng_state(states[0])",
            "pass",
            f"{BILEVEL}::test_both_sides_of_the_difference_use_the_same_dropout_mask",
        ),
        (
            "the virtual step adds no momentum",
            "direction = direction + momentum * velocity[name]",
            "direction = direction + 0.0",
            SECOND,
        ),
        (
            "epsilon is not divided by the norm",
            "epsilon = 0.01 / norm.clamp_min(1e-12)",
            "epsilon = 0.01 + 0 * norm",
            SECOND,
        ),
        (
            "alpha's direct gradient is that before the virtual step",
            "loss = search_loss(moved)",
            "loss = search_loss(weights)",
            SECOND,
        ),
    ],
    "strategy/relaxations/softmax.py": [
        (
            "dropped candidates keep a weight",
            "alpha.masked_fill(~mask, -torch.inf), -1)",
            "alpha, -1)",
            "tests/strategy/test_relaxation.py::test_closed_candidates_have_no_weight_and_no_gradient",
        ),
    ],
    "strategy/relaxations/gumbel.py": [
        (
            "samples have no temperature",
            "(alpha - exponential.log()) / self.temperature",
            "(alpha - exponential.log()) / 1.0",
            f"{RELAXATIONS}::test_the_temperature_falls_linearly_to_one_hot_samples",
        ),
        (
            "drawn candidates have no gradient",
            "return hard + (soft - soft.detach())",
            "return hard + 0 * soft",
            f"{RELAXATIONS}::test_gdas_draws_one_candidate_with_the_gradient_of_the_soft_sample",
        ),
    ],
    "strategy/relaxations/dirichlet.py": [
        (
            "gamma variates are not scaled down to their shape",
            "+ torch.log1p(-torch.rand_like(shape)) / shape",
            "+ 0 * torch.rand_like(shape)",
            f"{RELAXATIONS}::test_expected_weights_are_the_mean_of_the_drawn_ones[dirichlet]",
        ),
    ],
    "strategy/relaxations/sigmoid.py": [
        (
            "gates are pulled to a half",
            "return -self.settings.zero_one * distances",
            "return self.settings.zero_one * distances",
            f"{RELAXATIONS}::test_gates_are_independent_and_pulled_to_0_and_1",
        ),
    ],
    "strategy/relaxations/auxiliary_skip.py": [
        (
            "the auxiliary skip does not decay",
            "self.settings.auxiliary_skip * (1 - progress))",
            "self.settings.auxiliary_skip)",
            f"{RELAXATIONS}::test_the_auxiliary_skip_is_only_in_the_training_step_and_decays",
        ),
    ],
    "strategy/early_stop.py": [
        (
            "a search stops when the eigenvalue falls",
            "before < self.ratio * now",
            "before > self.ratio * now",
            f"{RELAXED}::test_a_search_stops_when_the_smoothed_eigenvalue_rises",
        ),
    ],
    "strategy/relaxation.py": [
        (
            "edge weights are not normalised per node",
            "torch.softmax(beta, -1) for beta",
            "beta.sigmoid() for beta",
            "tests/strategy/test_relaxation.py::test_edge_weights_into_each_node_sum_to_1",
        ),
    ],
    "strategy/progressive.py": [
        (
            "one candidate too many is kept",
            "kept = order[:keep]",
            "kept = order[: keep + 1]",
            f"{PRUNE}::test_each_edge_keeps_its_strongest_candidates",
        ),
        (
            "the strongest candidates are dropped",
            "order = np.argsort(-strength[kind, edge]",
            "order = np.argsort(strength[kind, edge]",
            f"{PRUNE}::test_each_edge_keeps_its_strongest_candidates",
        ),
        (
            "an edge may be left with skips only",
            "if not safe[kept].any():",
            "if False:",
            f"{PRUNE}::test_none_is_never_the_only_candidate_left",
        ),
        (
            "the budgets are ignored in pruning",
            "if unconditional or exists(pruned, budgets, max_skips):",
            "if True:",
            f"{PRUNE}::test_a_condition_on_skip_only_paths_can_still_be_met",
        ),
    ],
    "strategy/discretize.py": [
        (
            "the weakest edges are kept",
            "key=lambda edge: -peak[edge])",
            "key=lambda edge: peak[edge])",
            f"{DISCRETIZE}::test_edges_are_chosen_by_their_strongest_primitive_except_none",
        ),
        (
            "none may be derived",
            "strength = np.where(space.mask & space.choosable, weights, CLOSED)",
            "strength = np.where(space.mask, weights, CLOSED)",
            f"{DISCRETIZE}::test_edges_are_chosen_by_their_strongest_primitive_except_none",
        ),
        (
            "the strongest skip is dropped",
            "strength[min(left, key=",
            "strength[max(left, key=",
            f"{DISCRETIZE}::test_cells_with_one_input",
        ),
        (
            "one skip fewer than the cap",
            "if len(skips) <= max_skips:",
            "if len(skips) < max_skips:",
            f"{DISCRETIZE}::test_cells_with_one_input",
        ),
    ],
    "strategy/exact.py": [
        (
            "choices are not checked against the exact bounds",
            "return all(low <= cost <= high for",
            "return all(True or low <= cost <= high for",
            f"{EXACT}::test_the_result_is_the_best_of_all_allowed_genotypes",
        ),
        (
            "the cap on skips is that of all cells",
            'skips[0, space.kinds.index("normal"), :',
            "skips[0, :, :",
            f"{EXACT}::test_the_result_is_the_best_of_all_allowed_genotypes",
        ),
    ],
    "strategy/budgets.py": [
        (
            "the lower bound is rounded down",
            "np.ceil(round(floor, 6)) if name in COUNTED",
            "np.floor(round(floor, 6)) if name in COUNTED",
            "tests/strategy/test_spending.py::test_a_budget_above_the_most_expensive_cell_gets_no_lower_bound_and_a_remark",
        ),
    ],
    "strategy/replicas.py": [
        (
            "replicas are averaged arithmetically",
            "return np.exp(np.log(weights).mean(0))",
            "return np.mean(weights, 0)",
            "tests/strategy/test_replicas.py::test_the_mean_is_geometric",
        ),
        (
            "all replicas have the same seed",
            '"replica", number) % 2**32',
            '"replica", 1) % 2**32',
            "tests/strategy/test_replicas.py::test_the_first_seed_is_the_seed_of_the_search_and_all_differ",
        ),
    ],
    "cost/penalty.py": [
        (
            "a multiplier below its budget does not shrink",
            "self.multipliers[name] *= share**4",
            "self.multipliers[name] *= share",
            MULTIPLIER,
        ),
        (
            "a multiplier rises with the share",
            "self.rate * (share - 1)",
            "self.rate * share",
            MULTIPLIER,
        ),
        (
            "multipliers are not part of the price",
            "coefficient + self.multipliers.get(name, 0.0)",
            "coefficient",
            FIRST,
        ),
        (
            "prices are not relative to the uniform mixture",
            ".to(self.reference.device) / self.reference)",
            ".to(self.reference.device) / self.reference.sum())",
            FIRST,
        ),
    ],
    "cost/expected.py": [
        (
            "edges are drawn independently",
            "return first + (q * first * _inverse(rest)) @ others",
            "return 2 * first",
            FIRST,
        ),
        (
            "none is paid for",
            "weights = mixing.joint.double() * self.choosable",
            "weights = mixing.joint.double()",
            FIRST,
        ),
        (
            "edge weights do not change the price",
            "weights = mixing.joint.double() * self.choosable",
            "weights = mixing.weights.double() * self.choosable",
            f"{BY_HAND}[first-half]",
        ),
        (
            "the fixed parts are free",
            "costs = self.fixed + self.prices @ chosen.flatten()",
            "costs = self.prices @ chosen.flatten()",
            FIRST,
        ),
        (
            "edges inside a cell have its stride",
            "(plan.stride, plan.size) if source < space.inputs else (1, plan.inside)",
            "(plan.stride, plan.size)",
            f"{EXPECTED}::test_exact_cost_equals_the_count_of_the_network",
        ),
        (
            "primitives are priced without their scales",
            "space.primitives[place.name](place.channels, place.stride, True)",
            "space.primitives[place.name](place.channels, place.stride, False)",
            f"{EXPECTED}::test_exact_cost_equals_the_count_of_the_network",
        ),
    ],
    "cost/expected_peak.py": [
        (
            "a state is freed although a later edge reads it",
            "needed = later + self.waits * in_place + self.reads",
            "needed = self.waits * in_place + self.reads",
            f"{PEAK}::test_expected_peak_of_one_network_is_exact",
        ),
    ],
    "cost/peak_memory.py": [
        (
            "an input is freed before it is read",
            "change[self.dies[place] + 1] -= self.own[place]",
            "change[self.dies[place]] -= self.own[place]",
            f"{PEAK}::test_peaks_by_hand",
        ),
    ],
    "networks/supernet.py": [
        (
            "candidates are not weighted",
            "terms.append(weights[self.columns[name]] * y)",
            "terms.append(y)",
            f"{SUPERNET}::test_forward_is_the_weighted_sum",
        ),
        (
            "dropout after every primitive",
            "if name == SKIP:",
            "if True:",
            f"{SUPERNET}::test_skip_dropout_applies_only_to_skips",
        ),
        (
            "the channels are not shuffled",
            "return F.channel_shuffle(torch.cat([mixed, bypass(bypassed, self.stride)], 1), self.partial)",
            "return torch.cat([mixed, bypass(bypassed, self.stride)], 1)",
            f"{SUPERNET}::test_partial_channels",
        ),
        (
            "edge weights are ignored",
            "terms = [mixing.edges[self.kind, edge] * term for",
            "terms = [term for",
            f"{SUPERNET}::test_edge_weights_scale_the_edges_of_a_node",
        ),
        (
            "skip dropout does not keep the mean",
            "self.scale.fill_(1 / (1 - self.rate))",
            "self.scale.fill_(1.0)",
            f"{SUPERNET}::test_skip_dropout_preserves_the_mean",
        ),
    ],
    "networks/derived.py": [
        (
            "dropped paths do not keep the mean",
            "device=rate.device) >= rate) / (1 - rate)",
            "device=rate.device) >= rate) * 1.0",
            RETRAIN_PLAIN,
        ),
        (
            "identities are dropped too",
            "if kept is not None and not isinstance(op, nn.Identity):",
            "if kept is not None:",
            f"{DERIVED}::test_identities_are_never_dropped",
        ),
        (
            "edges between nodes have the cell's stride",
            "plan.stride if source < choice.inputs else 1, True)",
            "plan.stride, True)",
            f"{DERIVED}::test_only_edges_from_the_inputs_have_the_stride",
        ),
        (
            "the auxiliary head runs in evaluation",
            "if self.training and self.auxiliary is not None",
            "if self.auxiliary is not None",
            f"{DERIVED}::test_returns_a_pair_of_logits_only_in_training",
        ),
    ],
    "networks/layers.py": [
        (
            "both halves of a reduction read the same pixels",
            "return even, x[:, :, 1::2, 1::2]",
            "return even, even",
            "tests/networks/test_primitives.py::test_factorized_reduce_reads_even_and_odd_pixels",
        ),
    ],
    "networks/primitives.py": [
        (
            "average pools count their padding",
            "AvgPool(3, stride, 1, count_include_pad=False)",
            "AvgPool(3, stride, 1, count_include_pad=True)",
            "tests/networks/test_primitives.py::test_pools_ignore_the_padding",
        ),
        (
            "pools of the supernet have no norm",
            "return pool if affine else",
            "return pool if True else",
            "tests/networks/test_primitives.py::test_structure",
        ),
    ],
    "networks/batched/sums.py": [
        (
            "the batched supernet skips a state in the backward pass",
            "gradient = torch.cat([gradient] * ctx.states, 1)",
            "gradient = torch.cat([gradient, *[0 * gradient] * (ctx.states - 1)], 1)",
            f"{BATCHED}::test_batched_supernet_equals_the_plain_one",
        ),
    ],
    "networks/batched/verified.py": [
        (
            "a family that fails its check is used",
            "return KernelUse(FAMILIES - failed, ",
            "return KernelUse(FAMILIES, ",
            f"{VERIFIED}::test_newer_gpus_run_the_check",
        ),
        (
            "a failed check is remembered as passed",
            'failed[family] = f"{arithmetic}, {why}"',
            'failed[family] = f"{arithmetic}, {why}" if passed.add(f"{family} {arithmetic}") is None else ""',
            f"{VERIFIED}::test_a_failed_check_is_repeated",
        ),
    ],
    "networks/batched/kernels/checks.py": [
        (
            "a result that is not a number passes its check",
            "if not error <= tolerance:",
            "if error > tolerance:",
            f"{VERIFIED}::test_every_fault_is_caught[_pool-not a number]",
        ),
    ],
    "training/cuda_graph.py": [
        (
            "a replay that differs is used",
            "        if differs:",
            "        if not differs and differs:",
            "tests/training/test_cuda_graph.py::test_a_replay_that_differs_is_not_used",
        ),
    ],
    "training/claim.py": [
        (
            "a lock on a removed file counts",
            "is_owner = os.path.samestat(os.fstat(descriptor), os.lstat(path))",
            "is_owner = True",
            f"{CLAIM}::test_the_lock_of_a_folder_that_was_removed_and_created_again_is_not_the_lock[owned]",
        ),
        (
            "a lock is tried only once",
            "if time.monotonic() > deadline:",
            "if True:",
            f"{CLAIM}::test_a_process_that_only_looks_whether_a_folder_is_in_use_does_not_stop_its_owner",
        ),
        (
            "an error before the run is opened is not recorded",
            "if launch.resume and not opened and not is_empty(folder) and _has_settings(folder, config):",
            "if False:",
            f"{RESUME}::test_an_error_before_the_run_is_opened_is_recorded",
        ),
        (
            "a refused start changes the status",
            "return all(name in resolve.HARMLESS or name.startswith((*UNDECIDED, *of_like)) for name in names)",
            "return True",
            f"{RESUME}::test_a_run_whose_device_is_missing_says_so_in_its_status",
        ),
    ],
    "training/session.py": [
        (
            "other data count as a failure of the run",
            "saved, origin = check_same_run(claim, config, origin)",
            "resources.enter_context(_status(claim, screen)); saved, origin = check_same_run(claim, config, origin)",
            f"{RESUME}::test_a_refused_start_leaves_the_folder_as_it_was",
        ),
    ],
    "training/state.py": [
        (
            "the settings of an optimiser come from the checkpoint",
            'groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]',
            "groups: Any = saved",
            f"{RESUME}::test_settings_of_optimisers_do_not_come_from_a_checkpoint",
        ),
        (
            "the records may have a gap",
            "if not trainings or epoch != trainings[-1] or not (last <= stage if epoch == 0 else last == stage):",
            "if not trainings:",
            f"{RESUME}::test_records_are_those_of_the_epochs_up_to_a_position",
        ),
        (
            "the number of records does not matter",
            'if current != state["epoch"] or last > state["stage"] or not least <= len(trainings) <= state["stage"]:',
            "if False:",
            f"{RESUME}::test_a_state_that_cannot_be_used_is_refused_in_one_sentence",
        ),
        (
            "the state of a guard has any shape",
            "check_alike(thing.state_dict(), state)",
            "pass",
            f"{RESUME}::test_a_state_that_cannot_be_used_is_refused_in_one_sentence",
        ),
    ],
    "training/step_state.py": [
        (
            "a comparison of two steps starts from two states",
            "            tensor.copy_(copy)",
            "            tensor.copy_(tensor)",
            "tests/training/test_cuda_graph.py::test_a_state_is_restored_with_its_random_numbers",
        ),
    ],
    "training/intervals.py": [
        (
            "intervals of 100 % have no width",
            "square = NORMAL**2 / n",
            "square = 0 * NORMAL**2 / n",
            f"{INTERVALS}::test_wilson_of_published_examples",
        ),
        (
            "few trainings have the interval of many",
            "return float(stdtrit(len(values) - 1, 0.975)) * error",
            "return NORMAL * error",
            f"{INTERVALS}::test_few_trainings_have_students_interval",
        ),
        (
            "McNemar's test is one-sided",
            "return min(1.0, 2 * float(bdtr(fewer, both, 0.5)))",
            "return min(1.0, float(bdtr(fewer, both, 0.5)))",
            f"{INTERVALS}::test_mcnemar_of_published_values_and_by_hand",
        ),
    ],
    "training/guard.py": [
        (
            "a bad update changes batch norms",
            "torch._foreach_copy_(self.flat, torch.where(kept, self.after, self.before).split(self.sizes))",
            "pass",
            f"{PLANTED}[loss-inf-weights-0]",
        ),
        (
            "an infinite cost is not noticed",
            "numbers = [loss, self.nothing if cost is None else cost, norm, sum(statistics, self.nothing)]",
            "numbers = [loss, self.nothing, norm, sum(statistics, self.nothing)]",
            f"{PLANTED}[cost-inf-alphas-3]",
        ),
        (
            "skipped updates in a row are not counted",
            "in_a_row.copy_(torch.where(over, in_a_row, (in_a_row + 1) * skip))",
            "in_a_row.copy_(torch.where(over, in_a_row, 1 * skip))",
            "tests/loops/test_planted_faults.py::test_the_updates_in_a_row_are_counted_across_a_resume",
        ),
        (
            "a resumed run of an older version does not try again",
            "self.in_a_row.mul_(self.in_a_row < MOST_IN_A_ROW)",
            "pass",
            "tests/training/test_guard.py::test_a_count_that_ended_a_run_begins_again",
        ),
        (
            "the record includes skipped updates",
            "return {name: (torch.where(self.kept, total, 0), self.kept * count) for name, (total, count) in facts.items()}",
            "return dict(facts)",
            f"{PLANTED}[gradient-nan-weights-4]",
        ),
    ],
    "training/meter.py": [
        (
            "a mean over nothing is NaN",
            "total.item() / counts[name] for name, total in self.sums.items() if counts[name]}",
            'total.item() / (counts[name] or float("nan")) for name, total in self.sums.items()}',
            "tests/loops/test_planted_faults.py::test_a_bad_update_leaves_no_trace_if_it_is_the_only_one_of_its_epoch",
        ),
    ],
    "training/optimizer.py": [
        (
            "gradients are clipped by value",
            "nn.utils.clip_grads_with_norm_(parameters, clip, verdict.norm)",
            "nn.utils.clip_grad_value_(parameters, clip)",
            RETRAIN_PLAIN,
        ),
        (
            "Nesterov momentum is always off",
            "nesterov=nesterov",
            "nesterov=False",
            RETRAIN_NESTEROV,
        ),
    ],
    "training/schedules.py": [
        (
            "a cosine without floor",
            "return floor + 0.5 * (peak - floor)",
            "return 0.5 * (peak - floor)",
            "tests/training/test_schedules.py::test_learning_rate_of_darts",
        ),
        (
            "skip dropout continues from its warm-up",
            "return rate * math.exp(-0.2 * (epoch - warmup_epochs))",
            "return rate * math.exp(-0.2 * epoch)",
            SCHEDULES,
        ),
        (
            "drop path begins at its highest rate",
            "return rate * epoch / epochs",
            "return rate * (epochs - epoch) / epochs",
            RECIPE,
        ),
    ],
    "training/ema.py": [
        (
            "the average keeps its random beginning",
            "keep = ((1 + self.updates) / (10 + self.updates)).clamp(max=self.decay)",
            "keep = torch.tensor(self.decay)",
            RETRAIN_PLAIN,
        ),
        (
            "the average keeps its first statistics",
            "torch._foreach_copy_(copy, original)",
            "pass",
            RETRAIN_PLAIN,
        ),
    ],
    "training/class_weights.py": [
        (
            "weights are not relative to the number of classes",
            "len(labels) / (classes * sizes)",
            "len(labels) / sizes",
            HALVES,
        ),
        (
            "the loss is divided by the weights of the batch",
            'reduction="sum") / len(labels)',
            'reduction="sum") / weights[labels].sum()',
            BALANCED,
        ),
    ],
    "training/run.py": [
        (
            "every epoch reads the batches of the first",
            "source.epoch(self.epoch, self.step)",
            "source.epoch(0, self.step)",
            CROPS,
        ),
        (
            "every step of an epoch draws the same numbers",
            "self.epoch, self.step))",
            "self.epoch, 0))",
            "tests/training/test_run.py::test_a_stage_draws_from_its_stream",
        ),
        (
            "every epoch begins at the resumed step",
            "self.epoch, self.step, self.meter = self.epoch + 1, 0, Meter()",
            "self.epoch, self.meter = self.epoch + 1, Meter()",
            "tests/training/test_run.py::test_a_stage_draws_from_its_stream",
        ),
    ],
    "training/metrics.py": [
        (
            "ties count for both classes",
            "before = (logits > own) | ((logits == own) & (classes < labels[:, None]))",
            "before = logits > own",
            "tests/training/test_metrics.py::test_a_bin_includes_its_upper_edge",
        ),
    ],
    "data/batches.py": [
        (
            "augmentation is frozen to epoch 0",
            'f"{self.stream} augment", epoch, part, DRAWS)',
            'f"{self.stream} augment", 0, part, DRAWS)',
            AUGMENTED,
        ),
        (
            "zoom and colours are frozen to epoch 0",
            'f"{self.stream} zoom and colours", epoch, part,',
            'f"{self.stream} zoom and colours", 0, part,',
            AUGMENTED,
        ),
        (
            "every epoch has the same order",
            'f"{self.stream} order", epoch, len(self.index))',
            'f"{self.stream} order", 0, len(self.index))',
            "tests/data/test_dataset.py::test_every_epoch_yields_each_image_once_with_its_label_in_a_new_order",
        ),
        (
            "both streams have the same crops",
            'f"{self.stream} augment", epoch',
            '"augment", epoch',
            AUGMENTED,
        ),
    ],
    "data/dataset.py": [
        (
            "a split ignores its seed",
            "shuffled = permutation(seed, stream, 0, len(labels))",
            "shuffled = permutation(0, stream, 0, len(labels))",
            RANKED_IMAGES,
        ),
    ],
    "data/augment.py": [
        (
            "images are never flipped",
            "draws[:, None, None, None] < 0.5",
            "draws[:, None, None, None] < 0",
            AUGMENTED,
        ),
    ],
    "loops/in_programs.py": [
        (
            "a library call keeps the memory that its search freed",
            "        return_freed_memory()",
            "        pass",
            "tests/whole/test_unchanged.py::test_after_a_search_freed_memory_returns_to_the_system",
        ),
    ],
    "interruptions.py": [
        (
            "a signal interrupts a training step",
            "(self._answered or self.in_steps or self.in_job)",
            "(self._answered or self.in_job)",
            "tests/training/test_run.py::test_the_first_interrupt_in_a_step_is_answered_and_the_second_one_stops_it",
        ),
        (
            "an exception in a destructor is lost",
            "if _is_lost(frame):",
            "if False:",
            "tests/whole/test_signals.py::test_a_signal_in_a_destructor_is_not_lost",
        ),
    ],
    "loops/random_baseline.py": [
        (
            "the deviation over genotypes is divided by their number",
            "np.std(accuracies, ddof=1)",
            "np.std(accuracies)",
            "tests/loops/test_random_baseline.py::test_the_baseline_reports_mean_and_deviation_and_resumes",
        ),
    ],
    "loops/search_record.py": [
        (
            "the losses of a search are not weighted by the size of a batch",
            "(loss.detach() * len(labels), len(labels))",
            "(loss.detach(), len(labels))",
            FIRST,
        ),
        (
            "the ratio of the gradients is inverted",
            'means["price_gradient"] / means["task_gradient"]',
            'means["task_gradient"] / means["price_gradient"]',
            "tests/loops/test_search.py::test_the_metrics_contain_costs_and_gradient_ratio",
        ),
    ],
    "files/regular.py": [
        (
            "a path that was replaced is read",
            "if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):",
            "if False:",
            "tests/files/test_regular.py::test_a_path_that_is_replaced_after_the_check_is_refused",
        ),
        (
            "a file may have any size",
            "if most is not None and size > most:",
            "if False:",
            "tests/files/test_regular.py::test_a_file_is_read_up_to_its_limit",
        ),
    ],
    "data/pictures.py": [
        (
            "pictures are decoded in any format",
            "formats=FORMATS",
            "formats=None",
            f"{HOSTILE}::test_pictures_are_decoded_only_by_decoders[PostScript]",
        ),
    ],
    "data/archives.py": [
        (
            "an array may state any shape",
            "math.prod(shape) * dtype.itemsize > member.file_size",
            "False",
            "tests/data/test_archives.py::test_hostile_arrays_are_refused[an enormous shape]",
        ),
    ],
    "errors.py": [
        (
            "a reversed direction of text is printed",
            "one if one.isprintable() or one in kept",
            "one if ord(one) > 160 or one.isprintable() or one in kept",
            f"{HOSTILE}::test_strange_names_are_taken_as_text",
        ),
    ],
}
"""By file: what is wrong, the text that is replaced, the text that replaces it, and the test that must fail."""


def mutants() -> list[Mutant]:
    """Return every mutant."""
    return [Mutant(f"rapdarts/{file}", *row) for file, rows in MUTANTS.items() for row in rows]
