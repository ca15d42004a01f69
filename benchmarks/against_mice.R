# Rscript against_mice.R LONG.csv PREDICTED.csv OUT.csv AGAIN.csv
#
# What mice and mitml pool from the draws in LONG.csv, one figure a line in OUT.csv, and
# the draws as mice hands them back in AGAIN.csv. PREDICTED.csv holds rows to predict.
suppressMessages({
  library(mice)
  library(mitml)
})
options <- commandArgs(TRUE)
imp <- as.mids(read.csv(options[1]))
rows <- read.csv(options[2])
draws <- complete(imp, "all")
n <- nrow(draws[[1]])

found <- list()
add <- function(quantity, value) found[[quantity]] <<- as.numeric(value)
add_pooled <- function(name, fit) {
  pooled <- pool(fit)
  table <- summary(pooled, conf.int = TRUE)
  for (part in c("estimate", "std.error", "statistic", "df", "p.value")) {
    add(paste(name, part), table[[part]])
  }
  add(paste(name, "limits"), c(table[["2.5 %"]], table[["97.5 %"]]))
  for (part in c("ubar", "b", "t", "riv", "lambda", "fmi")) {
    add(paste(name, part), pooled$pooled[[part]])
  }
  pooled
}
add_test <- function(name, test) {
  # F, df1, df2, p and the relative increase in variance.
  for (k in c(1, 3, 4, 5)) {
    add(paste(name, c("F", "df1", "df2", "p", "riv")[k]), test[k])
  }
}
add_transformed <- function(name, r) {
  scalar <- pool.scalar(atanh(r), rep(1 / (n - 3), length(r)))
  half <- 1.96 * sqrt(scalar$t)
  add(name, tanh(scalar$qbar + c(0, -half, half)))
  add(paste(name, "fmi"), scalar$fmi)
}

fit <- with(imp, lm(progression ~ age + bmi + bp + s5))
null <- with(imp, lm(progression ~ age + bp))
pooled <- add_pooled("pool, lm:", fit)
add_pooled("pool, glm:", with(imp, glm(
  progression > 140 ~ age + bmi + bp, family = binomial,
  control = glm.control(epsilon = 1e-30)
)))
bmi <- sapply(draws, function(draw) draw$bmi)
scalar <- pool.scalar(colMeans(bmi), apply(bmi, 2, var) / n, n = n)
add("pool.scalar, mean", c(scalar$qbar, scalar$ubar, scalar$b, scalar$t, scalar$df, scalar$fmi))

add_test("mice D1:", D1(fit, null)$result)
add_test("mice D2, Wald:", D2(fit, null)$result)
add_test("mice D2, likelihoods:", D2(fit, null, use = "likelihood")$result)
add_test("mice D3:", D3(fit, null)$result)
large <- list(as.mitml.result(fit), as.mitml.result(null))
for (method in c("D1", "D2", "D3")) {
  test <- testModels(large[[1]], large[[2]], method = method)$test
  add_test(paste0("mitml ", method, ":"), test)
}

for (adjusted in c(FALSE, TRUE)) {
  name <- paste0("pool.r.squared", if (adjusted) ", adjusted")
  table <- pool.r.squared(fit, adjusted = adjusted)
  add(name, table[1:3])
  add(paste(name, "fmi"), table[4])
}
add_transformed("Fisher's z, correlation", sapply(draws, function(draw) cor(draw$bmi, draw$bp)))

predicted <- lapply(fit$analyses, predict, newdata = rows, se.fit = TRUE)
each <- sapply(seq_len(nrow(rows)), function(i) {
  q <- sapply(predicted, function(p) p$fit[i])
  u <- sapply(predicted, function(p) p$se.fit[i]^2)
  scalar <- pool.scalar(q, u, n = n, k = 5)
  half <- qt(0.975, scalar$df) * sqrt(scalar$t)
  c(scalar$qbar, sqrt(scalar$t), scalar$qbar - half, scalar$qbar + half, scalar$fmi)
})
add("pool.scalar, predictions", each[1:4, ])
add("pool.scalar, predictions fmi", each[5, ])

add("Monte Carlo error, by b", sqrt(pooled$pooled$b / pooled$pooled$m))
add("draws needed, by fmi", ceiling(1 + 0.5 * (max(pooled$pooled$fmi) / 0.05)^2))

write.csv(data.frame(
  quantity = rep(names(found), lengths(found)),
  value = format(unlist(found), digits = 17)
), options[3], row.names = FALSE)
write.csv(complete(imp, "long"), options[4], row.names = FALSE)
